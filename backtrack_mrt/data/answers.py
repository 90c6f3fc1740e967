r"""The gold answer of a row: as it is, in the last line of a solution (``#### 42``), or in its last ``\boxed{}``."""

from __future__ import annotations

import re
from typing import Any, Literal

from backtrack_mrt.grading import check_gold, extract_boxed

Extract = Literal["auto", "plain", "hashes", "boxed"]

_HASHES = re.compile(r"(?:\A|\n)#### ?([^\n]+)\s*\Z")
_WHOLE = re.compile(r"([+-]?\d+)\.0")  # a whole number that went through a float
_ABSENT = {"proof", "notfound"}  # NuminaMath's words for "no answer"


def read_gold(value: Any, extract: Extract, solution: bool = False) -> tuple[str, str | None]:
    """The gold answer in `value`, and why it cannot be used (None if it can).

    `extract` says where it stands. "auto" takes a last line ``####``, else the last box, else `value` as it is, unless
    `value` is a worked `solution`."""
    text = _text(value)
    found = _extracted(text, extract, solution)
    if found is None:
        marks = {"hashes": "no last line ####", "boxed": r"no \boxed{}"}.get(extract, r"neither #### nor \boxed{}")
        return "", "is empty" if not text else f"has {marks}"
    whole = _WHOLE.fullmatch(found)
    gold = whole[1] if whole else found
    return gold, "is no answer but says so" if gold.lower() in _ABSENT else check_gold(gold)


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def _extracted(text: str, extract: Extract, solution: bool) -> str | None:
    line = _HASHES.search(text) if extract in ("auto", "hashes") else None
    box = extract_boxed(text) if extract in ("auto", "boxed") and line is None else None
    found = line[1] if line else box
    if found is None and (extract == "plain" or (extract == "auto" and not solution)):
        found = text
    return None if found is None else found.strip()
