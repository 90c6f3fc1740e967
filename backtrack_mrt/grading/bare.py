r"""The comparison of bare math-verify inside the worker process, for an audit: its defaults, nothing closed.

Runs without the package around it (see worker.py), so it imports nothing of it. Time and memory are the worker's to
limit: math-verify's own alarm is switched off.
"""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify


def grade(request: dict[str, Any]) -> str:
    """The verdict on one request with a single pair, see worker.py; tolerances do not count."""
    ((gold, answer),) = request["pairs"]
    read = parse(rf"\boxed{{{answer}}}", parsing_timeout=None)
    if not read:
        return "unparsable"
    return "right" if verify(parse(rf"\boxed{{{gold}}}", parsing_timeout=None), read, timeout_seconds=None) else "wrong"


def warm_up() -> None:
    """Load what math-verify loads late, so that every forked child finds it in memory."""
    grade({"pairs": [[r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"]]})
