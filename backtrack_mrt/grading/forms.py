r"""Has the arithmetic been done? ``16-14`` equals 2, but whoever is paid for it learns to skip the subtraction."""

from __future__ import annotations

import re
from typing import Literal

from backtrack_mrt.grading.exact import NEAR, parse_quantity
from backtrack_mrt.grading.guards import MAX_CHARS
from backtrack_mrt.grading.judge import plain, plain_gold
from backtrack_mrt.grading.labels import split_label
from backtrack_mrt.grading.spellings import translate

# "numeral": where the gold is a plain numeral, only numerals are right. "equivalent": whatever equals the gold is.
Forms = Literal["numeral", "equivalent"]

_QUOTIENT = re.compile(r"[+-]?(?:[\d.,]+ ?/ ?[+-]?[\d.,]+|\\frac\{[^{}]*\}\{[^{}]*\})")
_POWER = re.compile(r"[+-]?(?!10(?!\d))\d+ ?\^ ?\{?\d")


def is_evaluated(gold: str, answer: str) -> bool:
    r"""Whether an answer that equals the gold is a numeral, where the gold is one; True for every other gold.

    Numerals are integers, decimals (repeating ones, too), fractions, mixed numbers, percentages, powers of ten and
    their multiples, number words, each with a sign and a unit, after a name ("x = 5") or a calculation ("3 + 2 = 5").
    A fraction that is a whole number (48/2) is a division left undone.
    """
    if gold.strip() == answer.strip() or len(gold) > MAX_CHARS or not _is_numeral(plain_gold(gold.strip())):
        return True
    text = plain(translate(answer))
    label = split_label(text)
    text = (label[1] if label else text).partition(NEAR)[0].rpartition("=")[2].strip()
    return _is_numeral(text.removeprefix("\\{").removesuffix("\\}"))


def _is_numeral(text: str) -> bool:
    quantity = parse_quantity(text)
    if quantity is None or _POWER.match(text):
        return False
    return quantity.value.denominator > 1 or _QUOTIENT.match(text) is None
