"""Colours that can be told apart and read, and charts as pictures with their numbers."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from support.pictures import pictures

from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.reports.charts import Chart, Series


def colours(scheme: str) -> dict[str, str]:
    """The page's variables in light or in dark."""
    style = files("backtrack_mrt.reports").joinpath("page", "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return found | (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark)) if scheme == "dark" else {})


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + .05) / (L2 + .05) of the relative luminances."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str) -> None:
    c = colours(scheme)
    grounds = ("paper", "panel", "mark")
    pairs = [(ink, ground) for ink in ("ink", "faint", "link", "right", "wrong") for ground in grounds]
    pairs += [("ink", f"{sign}-{n}") for sign in ("gain", "loss") for n in (1, 2)]
    pairs += [(f"{sign}-3-ink", f"{sign}-3") for sign in ("gain", "loss")] + [("faint", "gain-1"), ("ink", "gain-1")]
    low = {pair: contrast(*(c[name] for name in pair)) for pair in pairs}
    assert not {pair: round(ratio, 2) for pair, ratio in low.items() if ratio < 4.5}
    assert contrast(c["gain-3"], c["paper"]) > 3
    assert contrast(c["loss-3"], c["paper"]) > 3


def drawn(chart: Chart) -> tuple[Any, Any, Any]:
    """The figure with its axes, and what measures them in pixels."""
    figure = chart._figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, figure.axes[0], canvas.get_renderer()


def inside(figure: Any, boxes: list[Any]) -> bool:
    return all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


@pytest.mark.parametrize("number", [3, 10])
def test_names_of_bars_do_not_overlap(number: int) -> None:
    names = ["mrt-rl", "mrt-rl (credit=prefix)", "length-penalty", "star-shortest", *(f"mrt-rl-{k}" for k in range(6))]
    estimates = [Estimate(0.1 * k, 0.1 * k - 0.1, 0.1 * k + 0.1, 4) for k in range(number)]
    chart = Chart("gain", "Gain", "", "", "gain in accuracy", [Series.of("gain", estimates)], ticks=names[:number])
    figure, axes, renderer = drawn(chart)
    ticks = axes.get_yticklabels() if number > 3 else axes.get_xticklabels()
    assert [tick.get_text() for tick in ticks] == names[:number]
    boxes = [tick.get_window_extent(renderer) for tick in ticks]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert inside(figure, boxes)


def test_the_last_tick_is_whole() -> None:
    tokens = np.linspace(0, 480_000, 9)
    figure, axes, renderer = drawn(Chart("a", "A", "", "tokens", "accuracy", [Series("mrt", tokens, tokens / 1e6)]))
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    seen = [label for place, label in ticks if low <= place <= high]
    assert seen[-1].get_text() == "500000"
    assert inside(figure, [label.get_window_extent(renderer) for label in seen])


def test_a_share_has_no_place_below_nothing() -> None:
    x = np.linspace(-1, 1, 21)
    line = Series("mrt", x, np.where(x == 0, 0.9, 0.0))
    chart = Chart("p", "P", "", "progress", "share", [line], symmetric_log=0.01, bounds=(0, 1))
    assert -0.005 < drawn(chart)[1].get_ylim()[0] <= 0


def test_a_chart_is_a_picture_with_its_numbers(tmp_path: Path) -> None:
    x = np.array([0.0, 1.0, 2.0])
    series = Series("<b>mrt</b>", x, x / 2, x / 4, x, colour=0, solid_to=1)
    chart = Chart("acc", "Accuracy & more", "", "tokens", "accuracy", [series, Series("grpo", x, x)], mark=1)
    svg = chart.svg()
    assert "style=" not in svg
    assert "<b>mrt" not in svg
    assert "var(--series-1)" in svg
    assert 'aria-label="Accuracy &amp; more"' in svg
    with pictures():
        chart.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png", ".csv"}
    assert (tmp_path / "acc.csv").read_text().splitlines()[:3] == [
        "series,tokens,accuracy,low,high",
        "<b>mrt</b>,0,0,0,0",
        "<b>mrt</b>,1,0.5,0.25,1",
    ]
    assert chart.svg() == Chart("acc", "Accuracy & more", "", "tokens", "accuracy", chart.series, mark=1).svg()
