r"""Answers that list several things: tuples, intervals, matrices, sets, plain lists, ``\pm``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from backtrack_mrt.grading.canonical import canonical, closes_at_end, split_top
from backtrack_mrt.grading.labels import NAMED

MAX_PARTS = 16  # elements of a list or matrix that are compared one by one
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
    elements = _split_list(text)
    if len(elements) > 1 or (_CHOSEN.search(text) and not closes_at_end(text)):
        names = {match[0] if (match := NAMED.match(element)) else "" for element in elements}
        if len(names) == 1:  # "x = 1, x = 2" are two values, "x = 1, y = 2" keep their names
            elements = [element.removeprefix(names.copy().pop()) for element in elements]
        return Parts("list", False, _expand(elements))
    if text[:1] in ("(", "[") and closes_at_end(text):
        elements = split_top(text[1:-1], ",;")
        return Parts(text[0] + text[-1], True, tuple(elements)) if len(elements) > 1 else None
    return None


_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SPLIT = re.compile(r"(\\(?:pm|mp))(?![A-Za-z]) ?")
_CHOSEN = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")


def _split_list(text: str) -> list[str]:
    """The elements of a plain list. "1,234, 5,678" has two: where some commas have a space, those without are of
    thousands, if they can be."""
    if ", " in text:
        wide = [part.strip() for part in re.split(r", |; ?", text)]
        if any("," in part for part in wide) and all("," not in part or _THOUSANDS.fullmatch(part) for part in wide):
            return wide
    return split_top(text, ",;")


def _expand(elements: list[str]) -> tuple[str, ...]:
    r"""``a \pm b`` written out as two elements, ``\pm a \pm b`` as four; a ``\mp`` goes against its ``\pm``."""
    full: list[str] = []
    for element in elements:
        signs = _CHOSEN.findall(element)
        if not 0 < len(signs) <= 3:
            full.append(element)
            continue
        free = 1 if "mp" in signs else len(signs)
        for choice in product("+-", repeat=free):
            chosen = iter(choice if free > 1 else [_turned(choice[0], sign == "mp") for sign in signs])
            pieces = [piece if place % 2 == 0 else next(chosen) for place, piece in enumerate(_SPLIT.split(element))]
            full.append("".join(pieces).removeprefix("+"))
    return tuple(full)


def _turned(sign: str, turn: bool) -> str:
    return {"+": "-", "-": "+"}[sign] if turn else sign
