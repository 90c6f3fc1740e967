r"""Answers that list several things: tuples, intervals, matrices, sets, plain lists, ``\pm``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backtrack_mrt.grading.canonical import canonical, closes_at_end, split_top

NAMED = re.compile(
    r"(?:\\[A-Za-z]+ ?|(?:\\text\{)?[A-Za-z][A-Za-z ]*\}?)(?:_(?:\{\w+\}|\w))?'?(?:\([A-Za-z0-9,]*\))? ?"
    r"(?<![<>!])=(?!=) ?"
)
_MATRIX = re.compile(r"\\begin\{[pbB]?matrix\}(.*)\\end\{[pbB]?matrix\}", re.DOTALL)


@dataclass(frozen=True)
class Parts:
    """A tuple, interval, matrix (ordered), or a list or set (not): its brackets and shape, and its elements."""

    frame: str
    ordered: bool
    elements: tuple[str, ...]


def split_parts(text: str) -> Parts | None:
    """The elements of a canonical text that lists several things, or None."""
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = [row.split("&") for row in re.split(r"\\\\", matrix[1]) if row.strip()]
        shape = "matrix" + ",".join(str(len(row)) for row in rows)
        return Parts(shape, True, tuple(canonical(cell) for row in rows for cell in row))
    if "\\cup" in text:
        return Parts("union", False, tuple(part.strip() for part in text.split("\\cup")))
    if text.startswith("\\{") and text.endswith("\\}") and "\\}" not in text[:-2]:
        return Parts("set", False, _expand(split_top(text[2:-2], ",;")))
    elements = split_top(text, ",;")
    if len(elements) > 1 or (text.count("\\pm") == 1 and not closes_at_end(text)):
        names = {match[0] if (match := NAMED.match(element)) else "" for element in elements}
        if len(names) == 1:  # "x = 1, x = 2" are two values, "x = 1, y = 2" keep their names
            elements = [element.removeprefix(names.copy().pop()) for element in elements]
        return Parts("list", False, _expand(elements))
    if text[:1] in ("(", "[") and closes_at_end(text):
        elements = split_top(text[1:-1], ",;")
        return Parts(text[0] + text[-1], True, tuple(elements)) if len(elements) > 1 else None
    return None


def _expand(elements: list[str]) -> tuple[str, ...]:
    r"""``a \pm b`` written out as two elements."""
    full: list[str] = []
    for element in elements:
        if element.count("\\pm") == 1:
            full += [re.sub(r"\\pm *", sign, element).removeprefix("+") for sign in "+-"]
        else:
            full.append(element)
    return tuple(full)
