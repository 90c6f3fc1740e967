"""Templates to one page: everything escaped, a policy that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from backtrack_mrt.reports.trace_html import signed, trace_html
from backtrack_mrt.runs.trace import visible


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
    environment.filters |= {"signed": signed, "trace": trace_html}
    return environment


def render_page(**content: Any) -> str:
    """The whole page with its style, its script and the policy that allows these two and nothing else."""
    here = files("backtrack_mrt.reports").joinpath("page")
    style, script = (here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = {
        "default-src": "'none'",
        "style-src": _digest(style),
        "script-src": _digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    told = "; ".join(f"{name} {value}" for name, value in policy.items())
    return (
        templates().get_template("page.html").render(style=Markup(style), script=Markup(script), policy=told, **content)
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
