"""Templates to one page: everything escaped, a policy that lets nothing in, the trace's little curve."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from backtrack_mrt.reports.trace_view import TraceView
from backtrack_mrt.runs.trace import visible

FOLDED = 1500  # characters of a piece of text that are shown before the rest is folded away
WIDTH, HEIGHT = 640, 120  # of a trace's value curve


@cache
def templates() -> Environment:
    """Autoescape is on, and whatever is printed is made visible first."""
    environment = Environment(
        loader=PackageLoader("backtrack_mrt.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {"signed": signed, "folded": folded}
    environment.globals |= {"curve": curve}
    return environment


def trace_html(trace: TraceView) -> str:
    """One trace as an HTML fragment."""
    macro: Any = _trace_macros().trace
    return str(macro(trace))


@cache
def _trace_macros() -> Any:
    return templates().get_template("trace.html").module


def render_page(**content: Any) -> str:
    """The whole page with its style, its script and the policy that allows these two and nothing else."""
    style, script = (_file(name) for name in ("page.css", "page.js"))
    policy = {
        "default-src": "'none'",
        "style-src": _digest(style),
        "script-src": _digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return (
        templates()
        .get_template("page.html")
        .render(
            style=Markup(style),
            script=Markup(script),
            policy="; ".join(f"{name} {value}" for name, value in policy.items()),
            **content,
        )
    )


def _file(name: str) -> str:
    return files("backtrack_mrt.reports").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def signed(value: float | None, digits: int = 2) -> str:
    """+0.42, −0.42 (a real minus sign), ±0 for what rounds to nothing; – for None."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}"
    return "±0" if not float(text) else text.replace("-", "−")


def folded(text: str) -> tuple[str, str]:
    """What is shown of a text, and the rest; a little more than `FOLDED` is shown whole."""
    return (text, "") if len(text) < 1.2 * FOLDED else (text[:FOLDED], text[FOLDED:])


@dataclass(frozen=True)
class ValueCurve:
    """V over the tokens of a trace, in units of the drawing. `above` is the outline of the regret: the area over the
    curve. `turns` are (middle, width, y at its end) per turn."""

    line: str
    above: str
    turns: list[tuple[float, float, float]]
    start: tuple[float, float]


def curve(trace: TraceView) -> ValueCurve | None:
    """None without values, or without tokens."""
    values = [trace.turns[0].before, *(turn.after for turn in trace.turns)] if trace.turns else []
    total = trace.trajectory.sampled_tokens
    if not total or any(value is None for value in values):
        return None
    points = [
        (round(WIDTH * float(x) / total, 1), round(HEIGHT * (1 - min(max(float(y or 0), 0), 1)), 1))
        for x, y in zip(trace.spent, values, strict=True)
    ]
    middles = [((a[0] + b[0]) / 2, b[0] - a[0], b[1]) for a, b in pairwise(points)]
    return ValueCurve(_path(points), _path([(0, 0), *points, (WIDTH, 0)]), middles, points[0])


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
