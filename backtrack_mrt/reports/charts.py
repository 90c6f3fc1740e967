"""A chart as data, and its three forms: an SVG that follows the page's colours, files for papers, a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.types import FloatArray

BASE = "#767676"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")  # Okabe and Ito
MARKS = "osD^vPX"  # told apart without colour, too
MOST_NAMES = 50  # characters of all ticks that have room below the bars; longer ones stand beside bars that lie
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
INK, PAPER = "#000000", "#ffffff"
# What the page paints these with: its variables have a value for light, for dark and for print.
_VARIABLES = {INK: "ink", PAPER: "paper", BASE: "series-0"} | {c: f"series-{i}" for i, c in enumerate(COLOURS, 1)}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Series:
    """One line: `y` against `x`, both (X,), with the limits of an interval where there is one (NaN: none). `colour` is
    a place in `COLOURS`, None for the base's grey. Beyond `solid_to` the line is dashed."""

    label: str
    x: FloatArray
    y: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None
    colour: int | None = 0
    solid_to: float = np.inf

    @classmethod
    def of(
        cls, label: str, estimates: Sequence[Estimate], x: FloatArray | None = None, colour: int | None = 0
    ) -> Series:
        """Means with their intervals; without `x` the bars of a chart, one after the other."""
        mean, low, high = np.array([[e.mean, e.low, e.high] for e in estimates]).reshape(-1, 3).T
        return cls(label, np.arange(len(mean), dtype=np.float64) if x is None else x, mean, low, high, colour)

    @property
    def style(self) -> dict[str, Any]:
        """Colour and mark, as matplotlib's arguments."""
        if self.colour is None:
            return {"color": BASE, "marker": "."}
        again, place = divmod(self.colour, 7)
        line = {"markersize": 4} if not again else {"markersize": 3, "markerfacecolor": "none", "lw": 0.8}
        return {"color": COLOURS[place], "marker": MARKS[place]} | line


@dataclass(frozen=True)
class Chart:
    """Series over common axes. `ticks` names the places 0, 1, … of a bar chart; without them it is a line chart. `mark`
    is the x of a dotted line: the limit that was trained with."""

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Sequence[str] = ()
    mark: float | None = None
    symmetric_log: float | None = None  # linear up to here, logarithmic beyond
    bounds: tuple[float, float] = (-np.inf, np.inf)  # what y can be at all

    def table(self) -> list[list[str]]:
        """The numbers behind the chart: a header, then a row per point."""
        rows = [["series", self.x_label, self.y_label, "low", "high"]]
        for series in self.series:
            limits = (series.y if side is None else side for side in (series.low, series.high))
            for x, y, low, high in zip(series.x, series.y, *limits, strict=True):
                place = self.ticks[int(x)] if self.ticks else f"{x:.6g}"
                known = series.low is not None and np.isfinite(low)
                rows.append([series.label, place, _number(y), *(_number(v) if known else "" for v in (low, high))])
        return rows

    def csv(self) -> str:
        """The table as CSV."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(self.table())
        return file.getvalue()

    def svg(self) -> str:
        """For the page: text as text, colours as the page's variables, no style attributes and no outer files."""
        return _for_page(self._svg, self.title, prefix=self.name)

    def save(self, folder: Path) -> None:
        """NAME.svg, NAME.png and NAME.csv, for papers."""
        (folder / f"{self.name}.svg").write_text(self._svg, encoding="utf-8")
        self.save_png(folder / f"{self.name}.png")
        (folder / f"{self.name}.csv").write_text(self.csv(), encoding="utf-8")

    def save_png(self, path: Path) -> None:
        """A picture of 900 × 540 pixels."""
        self._figure.savefig(path, dpi=150, pil_kwargs={"compress_level": 1})

    @cached_property
    def _svg(self) -> str:
        import matplotlib

        svg = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self._figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        return svg.getvalue()

    @cached_property
    def _figure(self) -> Any:
        """Drawn without pyplot: nobody's backend or open figures are touched."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(6, 3.6))
        beside = len(self.series) > 5  # the legend needs room of its own
        margins = {"left": 0.14, "right": 0.7 if beside else 0.95, "bottom": 0.15, "top": 0.97}
        if self._lies:
            margins["left"] = 0.08 + 0.013 * max(map(len, self.ticks))
        axes = figure.subplots(gridspec_kw=margins)
        axes.spines[["top", "right"]].set_visible(False)
        (self._bars if self.ticks else self._lines)(axes)
        x_label, y_label = (self.y_label, self.x_label) if self._lies else (self.x_label, self.y_label)
        axes.set(xlabel=x_label, ylabel=y_label)
        if self.mark is not None:
            axes.axvline(self.mark, color=INK, lw=0.8, ls=":")
        if self.symmetric_log is not None:
            axes.set_yscale("symlog", linthresh=self.symmetric_log)
        if not self.ticks:
            axes.set_ylim(*self._limits())
            if all((series.x == np.rint(series.x)).all() for series in self.series):  # there is no step 1.5
                axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        if len(self.series) > 1:
            place = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if beside else {}
            axes.legend(fontsize="small", frameon=False, **place)
        return figure

    def _limits(self) -> tuple[float, float]:
        """Of y: all lines, and as much of the intervals as leaves these readable (with two seeds they are wide)."""
        y = np.concatenate([series.y for series in self.series])
        limits = [side for s in self.series for side in (s.low, s.high) if side is not None]
        around = np.concatenate([y, *limits])
        low, high = float(np.nanmin(y)), float(np.nanmax(y))
        room = (high - low) / 2 or 0.05 * abs(high) or 0.5
        low, high = max(low - room, float(np.nanmin(around))), min(high + room, float(np.nanmax(around)))
        edge = 0.04 * (high - low) or room
        below = edge if self.symmetric_log is None else min(edge, self.symmetric_log / 4)
        return max(low - below, self.bounds[0] - below), min(high + edge, self.bounds[1] + edge)

    @property
    def _lies(self) -> bool:
        """Whether its bars lie on their sides."""
        return sum(map(len, self.ticks)) > MOST_NAMES

    def _lines(self, axes: Any) -> None:
        for series in self.series:
            solid = series.x <= series.solid_to
            beyond = ~solid | (series.x == series.x[solid].max(initial=-np.inf))
            axes.plot(series.x[solid], series.y[solid], label=series.label, **series.style)
            if not solid.all():
                axes.plot(series.x[beyond], series.y[beyond], ls="--", **series.style)
            if series.low is not None and series.high is not None:
                axes.fill_between(series.x, series.low, series.high, color=series.style["color"], alpha=0.15, lw=0)

    def _bars(self, axes: Any) -> None:
        width = 0.8 / len(self.series)
        for i, series in enumerate(self.series):
            x = series.x - 0.4 + (i + 0.5) * width
            look = {"color": series.style["color"], "hatch": HATCHES[0 if series.colour is None else series.colour % 7]}
            draw, sides = (axes.barh, "xerr") if self._lies else (axes.bar, "yerr")
            draw(x, series.y, width, label=series.label, edgecolor=PAPER, **look)
            if series.low is not None and series.high is not None and np.isfinite(series.low).all():
                spread = {sides: np.abs(np.stack([series.y - series.low, series.high - series.y]))}
                ends = (series.y, x) if self._lies else (x, series.y)
                axes.errorbar(*ends, **spread, fmt="none", ecolor=INK, capsize=2, lw=1)
        places = range(len(self.ticks))
        if self._lies:
            axes.axvline(0, color=INK, lw=0.8)
            axes.set_yticks(places, self.ticks)
            axes.invert_yaxis()  # the first on top
        else:
            axes.axhline(0, color=INK, lw=0.8)
            axes.set_xticks(places, self.ticks)


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""


def _for_page(svg: str, title: str, prefix: str) -> str:
    """matplotlib's SVG as part of a page whose policy allows no style attributes: they become attributes of their own
    (of the same names), ids get a prefix, and what is for viewers of files goes."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for rule in element.attrib.pop("style", "").split(";"):
            name, _, value = (part.strip() for part in rule.partition(":"))
            if name == "font":
                element.set("font-size", re.match(r".*?([0-9.]+)px", value)[1])  # type: ignore[index]
            elif name:
                element.set(name, value)
        for name in ("fill", "stroke", "stop-color"):
            if (colour := element.get(name)) in _VARIABLES:
                element.set(name, f"var(--{_VARIABLES[colour]})")
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name.endswith("href") or "url(#" in value:
                element.set(name, value.replace("#", f"#{prefix}-", 1))
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", title)
    return ElementTree.tostring(root, encoding="unicode")
