r"""Sets of real numbers, however they are told: intervals, unions, inequalities, ``|x| \ge 2``, ``x \ne 0``, ℝ.

``x < 1 \text{ or } x \ge 4`` is ``(-\infty,1) \cup [4,\infty)``. Ends that are rational are computed with; other ends
(``\sqrt{3}``) are kept as texts and compared one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from backtrack_mrt.grading.canonical import split_top
from backtrack_mrt.grading.exact import parse_rational

_LOW, _HIGH = r"-\infty", r"\infty"
_VARIABLE = r"(?:[A-Za-z]|\\[a-z]+ ?)(?:_(?:\{\w+\}|\w))?(?:\([a-z]\))?"
_MEMBER = re.compile(rf"({_VARIABLE}) ?\\in(?![A-Za-z]) ?(.+)")
_BUILDER = re.compile(rf"\\\{{ ?({_VARIABLE})(?: ?\\in ?\\mathbb\{{R\}})? ?[|:] ?(.+)\\\}}")
_INTERVAL = re.compile(r"([\[(])(.+)[,;](.+)([\])])")
_SIGN = re.compile(r"(<|>|\\le(?![A-Za-z]) ?|\\ge(?![A-Za-z]) ?|\\ne(?![A-Za-z]) ?|=)")
_ABSOLUTE = re.compile(rf"\|({_VARIABLE})(?: ?([+-]) ?([^|]+))?\|")
_WITHOUT = re.compile(r"\\mathbb\{R\} ?(?:\\setminus|\\backslash|-|\\) ?\\\{(.+)\\\}")
_EXCLUDED = re.compile(rf"{_VARIABLE} ?\\ne(?![A-Za-z]) ?")
_TOLD = re.compile(r"[<>]|\\(?:le|ge|ne|cup|mathbb|lor)(?![A-Za-z])")
_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne", "=": "="}
_PLAIN_END = re.compile(r"[^+-]+")


@dataclass(frozen=True)
class Interval:
    """Ends as canonical texts, and whether they belong to it."""

    low: str
    low_in: bool
    high: str
    high_in: bool


@dataclass(frozen=True)
class Region:
    """A union of intervals; `name` of the variable, "" where it is not told."""

    name: str
    pieces: tuple[Interval, ...]

    @property
    def rational(self) -> bool:
        """Whether all ends can be computed with."""
        return all(_value(end) is not None for piece in self.pieces for end in (piece.low, piece.high))


def is_told(text: str) -> bool:
    """Whether a text can only be a region or a relation: plain brackets may be a point as well."""
    return _TOLD.search(text) is not None


def parse_region(text: str) -> Region | None:
    """The region that a canonical text tells, or None."""
    builder = _BUILDER.fullmatch(text)
    if builder:
        inner = parse_region(builder[2].strip())
        return inner if inner and inner.name in ("", builder[1].strip()) else None
    for joint, union in (("\\lor", True), ("\\land", False)):
        parts = [part.strip() for part in re.split(rf"{re.escape(joint)}(?![A-Za-z])", text)]
        if len(parts) > 1:
            return _joined([parse_region(part) for part in parts], union)
    if text.startswith("\\{"):
        return None
    member = _MEMBER.fullmatch(text)
    if member:
        named = _parse_set(member[2].strip())
        return None if named is None else Region(member[1].strip(), named)
    pieces = _parse_set(text)
    if pieces is not None:
        return Region("", pieces)
    listed = split_top(text, ",;")
    if len(listed) == 1:
        return _parse_relation(text)
    excluding = _EXCLUDED.match(listed[0])
    if excluding:  # x \ne 1, 2
        listed = [part if _SIGN.search(part) else excluding[0] + part for part in listed]
    regions = [_parse_relation(part) for part in listed]
    both = _joined(regions, union=False)  # "x > 1, x < 4" is meant as both, "x < 1, x > 4" as either
    return both if both is not None and both.pieces else _joined(regions, union=True)


def _parse_set(text: str) -> tuple[Interval, ...] | None:
    if text == r"\mathbb{R}":
        return (Interval(_LOW, False, _HIGH, False),)
    without = _WITHOUT.fullmatch(text)
    if without:
        points = split_top(without[1], ",;")
        if len(points) > 1 and not all(parse_rational(point) is not None for point in points):
            return None
        points.sort(key=lambda point: parse_rational(point) or Fraction(0))
        ends = [_LOW, *points, _HIGH]
        return tuple(Interval(a, False, b, False) for a, b in pairwise(ends))
    pieces: list[Interval] = []
    for part in re.split(r"\\cup(?![A-Za-z])", text):
        match = _INTERVAL.fullmatch(part.strip())
        if match is None or len(split_top(part.strip()[1:-1], ",;")) != 2 or "\\begin" in part:
            return None
        low, high = (_infinite(end.strip()) for end in split_top(part.strip()[1:-1], ",;"))
        pieces.append(Interval(low, match[1] == "[", high, match[4] == "]"))
    return _tidy(pieces)


def _parse_relation(text: str) -> Region | None:
    """``a < x \\le b``, ``x > a``, ``|x - c| < r``, ``x \\ne a``."""
    tokens = [token.strip() for token in _SIGN.split(text)]
    if not all(tokens) or len(tokens) not in (3, 5) or "," in text:
        return None
    if len(tokens) == 5:
        low, first, name, second, high = tokens
        if first in (">", "\\ge"):
            low, first, second, high = high, _TURNED[second], _TURNED[first], low
        if first not in ("<", "\\le") or second not in ("<", "\\le") or not re.fullmatch(_VARIABLE, name):
            return None
        return _named(name, [Interval(_infinite(low), first == "\\le", _infinite(high), second == "\\le")])
    name, sign, end = tokens
    if not re.fullmatch(rf"{_VARIABLE}|\|.+\|", name):
        name, sign, end = end, _TURNED[sign], name
    absolute = _ABSOLUTE.fullmatch(name)
    if absolute:
        return _absolute(absolute, sign, end)
    if not re.fullmatch(_VARIABLE, name) or sign == "=" or re.fullmatch(r"[A-Za-z]", end):
        return None
    if sign == "\\ne":
        return _named(name, [Interval(_LOW, False, end, False), Interval(end, False, _HIGH, False)])
    if sign in ("<", "\\le"):
        return _named(name, [Interval(_LOW, False, end, sign == "\\le")])
    return _named(name, [Interval(end, sign == "\\ge", _HIGH, False)])


def _absolute(match: re.Match[str], sign: str, end: str) -> Region | None:
    radius = parse_rational(end)
    centre = parse_rational(match[3].strip()) if match[3] else Fraction(0)
    if centre is None or sign not in ("<", ">", "\\le", "\\ge"):
        return None
    if radius is not None:
        centre = -centre if match[2] == "+" else centre
        low, high = str(centre - radius), str(centre + radius)
    elif centre == 0 and not match[3] and _PLAIN_END.fullmatch(end):
        low, high = f"-{end}", end
    else:
        return None
    closed = sign in ("\\le", "\\ge")
    if sign in ("<", "\\le"):
        return _named(match[1], [Interval(low, closed, high, closed)])
    return _named(match[1], [Interval(_LOW, False, low, closed), Interval(high, closed, _HIGH, False)])


def _named(name: str, pieces: list[Interval]) -> Region | None:
    tidy = _tidy(pieces)
    return None if tidy is None else Region(name.strip(), tidy)


def _joined(regions: list[Region | None], union: bool) -> Region | None:
    """The union or the intersection of regions of one variable."""
    found = [region for region in regions if region is not None]
    names = {region.name for region in found if region.name}
    if len(found) < len(regions) or len(names) > 1:
        return None
    name = names.pop() if names else ""
    pieces = list(found[0].pieces)
    for region in found[1:]:
        if union:
            pieces += region.pieces
            continue
        crossed = [_meet(one, other) for one in pieces for other in region.pieces]
        if any(piece is None for piece in crossed):
            return None
        pieces = [piece for piece in crossed if piece is not None and _holds(piece)]
    return _named(name, pieces)


def _meet(one: Interval, other: Interval) -> Interval | None:
    """The common part; None where it depends on ends that are no rational numbers."""
    ends = []
    for (end, inside), (end2, inside2), lower in (
        ((one.low, one.low_in), (other.low, other.low_in), True),
        ((one.high, one.high_in), (other.high, other.high_in), False),
    ):
        free = _LOW if lower else _HIGH
        if end == free or end2 == free:
            ends.append((end2, inside2) if end == free else (end, inside))
            continue
        value, value2 = _value(end), _value(end2)
        if value is None or value2 is None:
            return None
        if value == value2:
            ends.append((end, inside and inside2))
        else:
            ends.append((end, inside) if (value > value2) == lower else (end2, inside2))
    return Interval(*ends[0], *ends[1])


def _tidy(pieces: list[Interval]) -> tuple[Interval, ...] | None:
    """In order and merged where all ends are rational; None for an interval whose ends stand the wrong way."""
    if not Region("", tuple(pieces)).rational:
        return tuple(pieces)
    if not all(_holds(piece) for piece in pieces):
        return None
    merged: list[Interval] = []
    for piece in sorted(pieces, key=lambda p: (_end(p.low), not p.low_in)):
        last = merged[-1] if merged else None
        if last and (
            _end(piece.low) < _end(last.high) or (_end(piece.low) == _end(last.high) and (piece.low_in or last.high_in))
        ):
            top = max((last, piece), key=lambda p: (_end(p.high), p.high_in))
            merged[-1] = Interval(last.low, last.low_in, top.high, top.high_in)
        else:
            merged.append(piece)
    return tuple(merged)


def _holds(piece: Interval) -> bool:
    low, high = _value(piece.low), _value(piece.high)
    return low is None or high is None or low < high or (low == high and piece.low_in and piece.high_in)


def _infinite(end: str) -> str:
    return _HIGH if end in ("+\\infty", "\\infty") else end


def _value(end: str) -> Fraction | float | None:
    if end in (_LOW, _HIGH):
        return float("-inf") if end == _LOW else float("inf")
    return parse_rational(end)


def _end(end: str) -> Fraction | float:
    value = _value(end)
    return float("nan") if value is None else value


def same_interval(one: Interval, other: Interval) -> bool:
    """Whether two intervals agree in which ends belong to them, and in their rational and infinite ends."""
    if (one.low_in, one.high_in) != (other.low_in, other.high_in):
        return False
    pairs = ((one.low, other.low), (one.high, other.high))
    return all(_value(a) == _value(b) for a, b in pairs if _value(a) is not None or _value(b) is not None)
