r"""How else a gold answer can be written: ``\frac{1}{2}`` is ``\frac12``, ``1/2`` and ``0.5``, too.

The grader tells whether an answer equals the gold; here the question is the other way round. Listed are the forms that
a model is likely to write, not all that are right.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_DECIMAL = re.compile(r"(?:\\?\$)?(?P<sign>-?)(?P<whole>\d{1,3}(?:,\d{3})+|\d*)(?:\.(?P<places>\d+))?")
_FRACTION = re.compile(r"(?P<sign>-?)(?:\\[dt]?frac\{(\d+)\}\{(\d+)\}|\\[dt]?frac(\d)(\d)|(\d+)/(\d+))")
_TEXT = re.compile(r"\\text(?:bf|rm|it)?\{([^{}\\]*)\}")
_LOOSE = re.compile(r" *([-+=<>*/,]) *")
_MOST_PLACES = 4  # of a fraction that is also written as a decimal


def is_canonical(gold: str) -> bool:
    """Whether there is one usual way to write the gold: whether it is an integer. Everything else has several, and who
    lists them may miss one."""
    number = _decimal(gold)
    return number is not None and number.denominator == 1


@lru_cache(1 << 14)  # each prefix of each trajectory asks
def surface_forms(gold: str) -> tuple[str, ...]:
    """The gold as it stands, then its other forms. All are graded right."""
    gold = gold.strip()
    forms = [gold]
    if (number := _decimal(gold)) is not None:
        forms += _integers(number.numerator) if number.denominator == 1 else _decimals(number) + _fractions(number)
    elif (fraction := _fraction(gold)) is not None:
        forms += _fractions(fraction) + _decimals(fraction)
    elif text := _TEXT.fullmatch(gold):
        forms.append(text[1].strip())
    elif len(gold) == 1 and gold.isupper():
        forms.append(rf"\text{{{gold}}}")
    else:
        forms += [gold.replace(r"\dfrac", r"\frac"), gold.replace(r"\frac", r"\dfrac")]
        forms += [_LOOSE.sub(r"\1", form) for form in forms if r"\text" not in form]
    return tuple(dict.fromkeys(form for form in forms if form))


def _decimal(gold: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(gold.strip())
    if match is None or not (match["whole"] or match["places"]):
        return None
    value = Fraction(f"{match['whole'].replace(',', '') or '0'}.{match['places'] or '0'}")
    return -value if match["sign"] else value


def _fraction(gold: str) -> Fraction | None:
    match = _FRACTION.fullmatch(gold)
    if match is None:
        return None
    above, below = (int(part) for part in match.groups()[1:] if part is not None)
    if below == 0:
        return None
    return Fraction(-above if match["sign"] else above, below)


def _integers(number: int) -> list[str]:
    forms = [str(number)]
    if abs(number) >= 1000:
        forms += [f"{number:,}", f"{number:,}".replace(",", "{,}")]
    return [*forms, f"{number}.0", f"{number}.00", rf"\${number}"]


def _decimals(number: Fraction) -> list[str]:
    """0.5, .5 and 0.50, where the decimal ends soon."""
    for places in range(1, _MOST_PLACES + 1):
        if (number * 10**places).denominator == 1:
            sign, size = "-" if number < 0 else "", f"{float(abs(number)):.{places}f}"
            forms = [sign + size, *([sign + size[1:]] if size.startswith("0.") else [])]
            return [*forms, f"{sign}{size}0", *([rf"\${size}", rf"\${size}0"] if places <= 2 and not sign else [])]
    return []


def _fractions(number: Fraction) -> list[str]:
    sign, above, below = "-" if number < 0 else "", abs(number.numerator), number.denominator
    if below == 1:
        return [str(number)]
    short = [rf"{sign}\frac{above}{below}"] if max(above, below) < 10 else []
    signed_above = [rf"\frac{{-{above}}}{{{below}}}"] if sign else []
    braced = f"{{{above}}}{{{below}}}"
    return [rf"{sign}\frac{braced}", rf"{sign}\dfrac{braced}", *short, f"{sign}{above}/{below}", *signed_above]
