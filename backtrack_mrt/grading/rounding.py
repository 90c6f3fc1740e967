r"""``\frac13 \approx 0.333``: an exact answer and its rounding, which must fit."""

from __future__ import annotations

from fractions import Fraction

from backtrack_mrt.grading.exact import parse_quantity

SIGN = "\\approx"


def split_rounding(text: str) -> tuple[str, str] | None:
    """The exact side and the rounded side of one ≈."""
    exact, sign, rounded = text.partition(SIGN)
    return (exact.strip(), rounded.strip()) if sign and exact.strip() and SIGN not in rounded else None


def rounded_value(text: str) -> tuple[Fraction, Fraction] | None:
    """The value of a rounded decimal and one unit of its last place, by which it may be off; None for the rest."""
    quantity = parse_quantity(text)
    if quantity is None:
        return None
    value = quantity.value
    mantissa = text.split("\\times")[0].split("\\cdot")[0].rstrip(" \\%").replace(",", "")
    digits = "".join(character for character in mantissa if character.isdigit() or character == ".")
    _, _, decimals = digits.partition(".")
    place = Fraction(1, 10 ** len(decimals))
    written = Fraction(digits or "0") if digits not in ("", ".") else Fraction(0)
    return (value, place * abs(value / written)) if written and value else None


def fits(exact: Fraction, rounded: str) -> bool:
    """Whether a rounded text is that exact value, to its last place."""
    read = rounded_value(rounded)
    return read is not None and abs(read[0] - exact) < read[1]
