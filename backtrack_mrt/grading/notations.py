r"""What is written in digits and is no plain number: numerals of another base, ratios, clock times."""

from __future__ import annotations

import re

from backtrack_mrt.grading.canonical import split_top
from backtrack_mrt.grading.exact import parse_rational
from backtrack_mrt.grading.number_words import leading_number

_BASE = re.compile(
    r"\(?(-?[0-9A-Z]*[0-9][0-9A-Z]*)\)?(?:_ ?\{?\(?([0-9]+|[a-z-]+)\)?\}?|,? ?\(?(?:in )?base[ -]?([0-9]+|[a-z-]+)\)?)"
)
_TEXT = re.compile(r"\\text\{ ?([^{}]*?) ?\}")
_CLOCK = re.compile(r"\d{1,2}(?::\d\d)+(?: ?[ap]\.? ?m\.?)?", re.IGNORECASE)
_TO = re.compile(r" to |:")


def parse_base(text: str) -> tuple[str, int] | None:
    """Digits and base of ``63_8``, ``63_{\text{eight}}`` or "63 base 8"; None for the rest."""
    match = _BASE.fullmatch(_TEXT.sub(r" \1 ", text).replace("{ ", "{").replace(" }", "}").replace("_ ", "_").strip())
    if match is None:
        return None
    name = match[2] or match[3]
    if name.isdigit():
        return match[1], int(name[:9])
    words = name.split("-")
    found = leading_number(words)
    return (match[1], int(found[0])) if found and found[1] == len(words) else None


def is_clock(text: str) -> bool:
    """Whether a text may be a time of the day, whose digits are compared as they are: 10:30 is not 1:3."""
    return _CLOCK.fullmatch(_TEXT.sub(r" \1", text).strip()) is not None


def split_ratio(text: str) -> list[str] | None:
    r"""The terms of ``3:7``, "3 to 7" or ``1:\sqrt{3}``; None for the rest."""
    whole = _TEXT.fullmatch(text)
    text = whole[1] if whole else text
    if ":" not in text and " to " not in text:
        return None
    terms = [term for part in split_top(text, ":") for term in _TO.split(part)]
    return [term.strip() for term in terms] if all(term.strip() for term in terms) else None


def proportional(gold: list[str], answer: list[str]) -> bool:
    """Whether rational terms are the same ratio."""
    first, second = [parse_rational(term) for term in gold], [parse_rational(term) for term in answer]
    if None in first or None in second or len(first) != len(second) or not first[0] or not second[0]:
        return False
    return [term / first[0] for term in first if term is not None] == [
        term / second[0] for term in second if term is not None
    ]
