r"""The gold answer of a row: as it is, behind ``####`` or "the answer is", or in the last ``\boxed{}``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH, Math
from backtrack_mrt.grading import extract_boxed
from backtrack_mrt.grading.number_words import is_number_word, multiplier
from backtrack_mrt.grading.spellings import FUNCTIONS
from backtrack_mrt.grading.units import parse_unit

Extract = Literal["auto", "plain", "hashes", "boxed"]

_LAST_LINE = re.compile(r"(?:\A|\n)#### ?([^\n]+)\s*\Z")
_ANYWHERE = re.compile(r"####[ \t]*([^\n#]+)")
_SAID = re.compile(
    r"(?:\banswer\s+is\s*:?|(?:\A|\n)\W*(?:the |final )*answer[\s*]*[:=])[\s*]*([^\n]+?)[\s*.]*\Z", re.IGNORECASE
)
_TAGGED = re.compile(r"<answer>\s*([^<>]+?)\s*</answer>\s*\Z", re.IGNORECASE)
_NUMERAL = re.compile(r"-?\$?\d+(?:,\d{3})*(?:[./]\d+)?(?=[\s.,;!]|\Z)")
_WHOLE = re.compile(r"([+-]?\d+)\.0")  # a whole number that went through a float
# What stands where nobody has written an answer. `proof` and `notfound` are NuminaMath's words.
_NOTHING = """proof notfound n/a n.a na none null nan nil unknown tbd todo missing idk omitted placeholder answer
unanswerable ? - — xxx"""
_ABSENT = {
    *_NOTHING.split(),
    *("not found", "not available", "not provided", "not given", "no answer", "not applicable", "to be determined"),
    *("i don't know", "i do not know", "solution omitted", "left as an exercise", "left to the reader", "your answer"),
    *("answer here", "your answer here"),
}
_ELSEWHERE = re.compile(
    r"\W*(?:please )?(?:see|refer to|cf\.?|as in|given in) (?:the |my |attached )*"
    r"(?:solution|above|below|explanation|proof|figure|attached|text|answer|appendix|worksheet|image)\b|todo\b"
    r"|\W*(?:as )?shown (?:in|above|below)\b|!\[|https?://",
    re.I,
)
_SENTENCE = re.compile(r"[A-Z][a-z']*(?:\s+\S+){4,}\.")
_TAG = re.compile(r"</\w+>")
_SENTENCES = re.compile(r"\s\S*\w[.!?]\s+[A-Z][a-z]+")
_FEW = 4  # words that may be a numeral's unit, or an answer without its solution
_JOINING = "or and to through plus minus times divided over mod base squared cubed factorial percent degrees"
_JOINS = frozenset(_JOINING.split())


def read_gold(value: Any, extract: Extract, solution: bool = False, grader: Grader = MATH) -> tuple[str, str | None]:
    """The gold answer in `value`, and why `grader` cannot use it (None if it can).

    `extract` says where it stands. "auto" takes a last line ``####``, else the last box, else what "the answer is" at
    the end, else the last ``####`` wherever it is, else `value` as it is, unless `value` is a worked `solution`. Golds
    that are no answers (tests, numbers and a target) are taken as they are; lists of lines and mappings, too."""
    if not grader.golds_are_answers and extract == "auto":
        gold = _whole(value)
        return gold, grader.refusal(gold)
    if isinstance(value, float) and not math.isfinite(value):
        return "", f"is no answer but says so: {value}"
    value = _only(value)
    if isinstance(value, bool):
        said = "yes" if value else "no"
        return said, f"is no number: {value}" if isinstance(grader, Math) else grader.refusal(said)
    if value is not None and not isinstance(value, str | int | float | Decimal | list | dict):
        return "", f"is no text but of the type {type(value).__name__}"
    if value and isinstance(value, list | dict):
        return "", f"is no text but {f'a list of {len(value)}' if isinstance(value, list) else 'an object'}"
    text = "" if value is None or isinstance(value, list | dict) else str(value).strip()
    found = _extracted(text, extract, solution)
    if found is not None and extract != "plain" and found != text and isinstance(grader, Math):
        found = _bare(found)
    if found is None:
        marks = {"hashes": "no last line ####", "boxed": r"no \boxed{}"}.get(extract, r"neither #### nor \boxed{}")
        return "", "is empty" if not text else f"has {marks}"
    whole = _WHOLE.fullmatch(found)
    gold = whole[1] if whole else found
    absent = _placeholder(gold) if isinstance(grader, Math) else None
    return gold, absent or grader.refusal(gold)


def joined_tests(cells: Mapping[str, Any], values: Sequence[Any]) -> Any:
    """The tests that stand in several columns, as lines. HumanEval's are a function that nobody calls, ``check``, and
    `entry_point` says with what."""
    lines = [line for value in values if value for line in (value if isinstance(value, list) else [value])]
    whole = values[0] if len(values) == 1 else lines
    called = cells.get("entry_point")
    if isinstance(called, str) and "def check(" in (text := _whole(whole)) and f"check({called})" not in text:
        return f"{text}\ncheck({called})"
    return whole


def _placeholder(gold: str) -> str | None:
    """Why a text is no answer though there is one: what nobody could give back."""
    if gold.lower().strip(" .()[]#") in _ABSENT:
        return f"is no answer but says so: {gold}"
    if _ELSEWHERE.match(gold):
        return f"says where the answer is, not what it is: {gold}"
    if tag := _TAG.search(gold):
        return f"holds a tag: {tag[0]}"
    if _SENTENCES.search(gold):
        return "is several sentences"
    return "is a sentence" if _SENTENCE.fullmatch(gold) else None


def _whole(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return json.dumps(value) if isinstance(value, dict) else str(value if value is not None else "")


def _only(value: Any) -> Any:
    """The one entry of a list, which may be written as JSON (``["5"]``); else the value."""
    if isinstance(value, str) and value.startswith('["') and value.endswith('"]'):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _extracted(text: str, extract: Extract, solution: bool) -> str | None:
    auto = extract == "auto"
    line = _LAST_LINE.search(text) if auto or extract == "hashes" else None
    found = line[1] if line else extract_boxed(text) if auto or extract == "boxed" else None
    if found is None and auto and (said := _TAGGED.search(text) or _SAID.search(text)):
        found = said[1]
    if found is None and (auto or extract == "hashes") and (marked := _ANYWHERE.findall(text)):
        found = marked[-1]
    if found is None and (extract == "plain" or (auto and not (solution and len(text.split()) > _FEW))):
        return text.strip()
    return None if found is None else found.strip()


def _bare(found: str) -> str:
    """A numeral without the words that go on behind it, unless they are its unit or make it another number."""
    numeral = _NUMERAL.match(found)
    if numeral is None:
        return found
    behind = re.findall(r"[^\s.,;!]+", found[numeral.end() :])
    if len(behind) <= _FEW and (not behind or not _goes_on(behind[0]) or parse_unit(" ".join(behind)) is not None):
        return found
    return numeral[0]


def _goes_on(word: str) -> bool:
    """Whether a sentence goes on with this word behind a numeral."""
    known = word.lower() in FUNCTIONS | _JOINS or is_number_word(word.lower()) or multiplier(word.lower()) is not None
    return word.isascii() and word.isalpha() and len(word) > 1 and not known
