r"""Numbers as exact rationals with their unit: 1,234.50, ``-\frac{3}{4}``, ``0.\overline{3}``, ``3\times10^8``, 5%;
and their roundings, which must fit: ``\frac13 \approx 0.333``.

Every function takes canonical text (see canonical.py) and returns None for what is no such number. No floats: two
numbers are equal or they are not, and 0.999999 is not 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from backtrack_mrt.grading.number_words import leading_number, multiplier
from backtrack_mrt.grading.units import parse_unit

NEAR = "\\approx"
MAX_EXPONENT = 400  # of ten; larger ones are left to the worker
MAX_POWER_BITS = 1 << 15  # of an integer power such as 2^{100}

_NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)"
_SIGNED = rf"[+-]?{_NUMBER}"
_PLAIN = re.compile(rf"([+-]?)({_NUMBER})")
_FRACTION = re.compile(rf"([+-]?)\\frac\{{({_SIGNED})\}}\{{({_SIGNED})\}}")
_SLASH = re.compile(rf"([+-]?)({_NUMBER}) ?/ ?({_SIGNED})")
_MIXED = re.compile(r"([+-]?)(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}| (\d+)/(\d+))")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot) ?(?:\{(\d+)\}|(\d))|\((\d+)\))")
_SCIENTIFIC = re.compile(
    rf"([+-]?)(?:({_NUMBER}) ?(?:\\times|\\cdot|\*|x) ?)?10 ?(?:\^|\*\*) ?(?:\{{([+-]?\d+)\}}|([+-]?\d+))"
)
_E_NOTATION = re.compile(rf"([+-]?)({_NUMBER})[eE]([+-]?\d+)")
_POWER = re.compile(r"([+-]?)(\d+) ?(?:\^|\*\*) ?(?:\{(\d+)\}|(\d+))")
_WORDED = re.compile(r"\\text\{ ?([^{}]*?) ?\}")
_FORMS = (_FRACTION, _SLASH, _MIXED, _REPEATING, _SCIENTIFIC, _E_NOTATION, _POWER, _PLAIN)

_CURRENCY = re.compile(
    r"^([+-]?)(?:(?:US)?(?:\\?\$|\\text\{(?:US)?\\?\$\})|([€£¥₹])|\\text\{Rs\.? ?\}|Rs\.?|USD) ?([+-]?)(?=[\d.\\])"
)
_CURRENCY_AFTER = re.compile(r" ?(?:\\?\$|[€£¥₹])$")
_MONEY_WORD = re.compile(r" ?(?:\\text\{ ?)?(?:dollar|usd|euro|pound|rupee|yen|yuan)", re.IGNORECASE)
_PERCENT = re.compile(r" ?\\?%$")
_FIRST_WORD = re.compile(r"^ ?(\\text\{)? ?([A-Za-z]+)(?![A-Za-z])[ -]?")
_ATOM = (
    r"(?:\\text\{(?:[^{}]|\{[^{}]*\})*\}|\\Omega|\\mu ?\\text\{[^{}]*\}"
    r"|\^ ?(?:\{ ?\\circ ?\}|\\circ) ?(?:[CF](?![A-Za-z]))?)"
)
_TEXT_TAIL = re.compile(rf"(?: ?(?:\\cdot ?|\\times ?|/ ?|\\)?{_ATOM}(?:\^ ?(?:\{{ ?-?\d ?\}}|\d))?)+$")
_FRACTION_TAIL = re.compile(
    r" ?\\frac\{(?:\\text\{[^{}]*\}|[ \\cdot^\d])+\}\{(?:\\text\{[^{}]*\}|[ \\cdot^\d]|\{-?\d\})+\}$"
)
_BARE_TAIL = re.compile(r"(?<=[\d})]) ?(?:[A-Za-z][A-Za-z ./]*|[^\x00-\x7f]+)(?:\^ ?(?:\{-?\d\}|\d))?$")
_ASIDE = re.compile(r"^ ?\(([A-Za-z ]{3,})\)$")  # 5 (apples)
_OF_AN_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")


@dataclass(frozen=True)
class Quantity:
    """A number, whether a percent sign follows it, and its unit ("" if it has none; lower case, one name each)."""

    value: Fraction
    percent: bool = False
    unit: str = ""


def parse_quantity(text: str, *, gold: bool = False) -> Quantity | None:
    """The number that ``text`` is, with its unit, or None if it is anything else.

    gold: a bare "12 m" is a product in a gold, where a unit would be marked as text; in an answer it is twelve metres.
    """
    worded = _WORDED.fullmatch(text)
    text = worded[1] if worded else text
    value = parse_rational(text)
    if value is not None:
        return Quantity(value)
    body, percent, unit = _split_money(text)
    if unit or percent:
        value = parse_rational(body)
        if value is not None:
            return Quantity(value, percent, unit)
    return _numeral_and_unit(body, unit, gold) or _words_and_unit(body)


def _numeral_and_unit(text: str, money: str, gold: bool) -> Quantity | None:
    """A numeral, then any multipliers ("million"), then a unit."""
    found = max((match.end() for form in _FORMS if (match := form.match(text))), default=0)
    value = parse_rational(text[:found].rstrip()) if found else None
    if value is None:
        return None
    rest = text[found:]
    if rest.startswith(".."):
        return None  # 0.333... is not 0.333
    while (word := _FIRST_WORD.match(rest)) and (factor := multiplier(word[2].lower())) is not None:
        value *= factor
        rest = " " + (word[1] or "") + rest[word.end() :]
    rest = _ASIDE.sub(r" \1", rest.replace("\\text{}", ""))
    if not rest.strip() or rest.strip() in ("\\%", "%"):
        return Quantity(value, "%" in rest, money)
    if money and not _MONEY_WORD.match(rest):
        return None
    attached = not rest.startswith((" ", "\\", "^"))
    unit = parse_unit(rest, cautious="\\text" not in rest and (attached or gold))
    return None if unit is None else Quantity(value, False, unit or money)


def _words_and_unit(text: str) -> Quantity | None:
    """Number words, then a unit: "two dozen eggs"."""
    if not text[:1].isalpha() or not text.replace(" ", "").replace("-", "").isalpha():
        return None
    listed = text.lower().replace("-", " ").split()
    sign = -1 if listed[0] in ("minus", "negative") else 1
    listed = listed[sign < 0 :]
    found = leading_number(listed)
    if found is None:
        return None
    value, taken = sign * found[0], found[1]
    rest = listed[taken:]
    if rest[:1] and rest[0] in ("a", "an", "of"):
        rest = rest[1:]
    unit = parse_unit(" ".join(rest), cautious=True)
    return None if unit is None else Quantity(value, False, unit)


def _split_money(text: str) -> tuple[str, bool, str]:
    """``text`` without currency and percent signs; whether it had the percent sign; the currency's name."""
    body, unit = text, ""
    currency = _CURRENCY.match(body)
    if currency:
        sign = currency[2] or ("₹" if "Rs" in currency[0] else "$")
        body, unit = currency[1] + currency[3] + body[currency.end() :], sign
    elif after := _CURRENCY_AFTER.search(body):
        body, unit = body[: after.start()], after[0][-1]
    percent = _PERCENT.search(body)
    return (body[: percent.start()].rstrip(), True, unit) if percent else (body, False, unit)


def split_unit(text: str) -> tuple[str, bool, str]:
    """``text`` without percent sign, currency and unit; whether it had the percent sign; the unit's name. For values
    that are no plain numbers, such as 4√3 cm."""
    body, percent, unit = _split_money(text)
    if percent or unit:
        return body, percent, unit
    for pattern in (_TEXT_TAIL, _FRACTION_TAIL, _BARE_TAIL):
        found = pattern.search(body)
        if found and found.start() and body[found.start() - 1] not in "_^{(":
            name = parse_unit(found[0], cautious=pattern is _BARE_TAIL)
            if name is not None and not (name == "deg" and _OF_AN_ANGLE.search(body)):
                return body[: found.start()].rstrip(), False, name
    return body, False, ""


def parse_rational(text: str) -> Fraction | None:
    """The exact value of a number without a unit, or None."""
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    match = _PLAIN.fullmatch(text)
    if match:
        return _signed(match[1], _decimal(match[2]))
    if not text[:1].isascii() or text[:1].isalpha():
        return None
    match = _FRACTION.fullmatch(text) or _SLASH.fullmatch(text)
    if match:
        denominator = _decimal(match[3])
        return _signed(match[1], _decimal(match[2]) / denominator) if denominator else None
    match = _MIXED.fullmatch(text)
    if match:
        denominator = Fraction(int(match[4] or match[6]))
        return _signed(match[1], int(match[2]) + int(match[3] or match[5]) / denominator) if denominator else None
    match = _REPEATING.fullmatch(text)
    if match:
        return _signed(match[1], _repeating(match[2], match[3], match[4] or match[5] or match[6]))
    return _parse_power(text)


def _parse_power(text: str) -> Fraction | None:
    match = _SCIENTIFIC.fullmatch(text)
    if match:
        return _scaled(match[1], match[2] or "1", match[3] or match[4])
    match = _E_NOTATION.fullmatch(text)
    if match:
        return _scaled(match[1], match[2], match[3])
    match = _POWER.fullmatch(text)
    if match:
        base, exponent = int(match[2]), int((match[3] or match[4])[:9])
        return _signed(match[1], Fraction(base**exponent)) if base.bit_length() * exponent < MAX_POWER_BITS else None
    return None


def _scaled(sign: str, number: str, exponent: str) -> Fraction | None:
    power = int(exponent[:9])
    return _signed(sign, _decimal(number) * Fraction(10) ** power) if abs(power) <= MAX_EXPONENT else None


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _decimal(number: str) -> Fraction:
    number = number.replace(",", "").replace(" ", "")
    if number.isdigit():
        return Fraction(int(number))
    return Fraction(number.removesuffix("."))  # with an optional sign


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    start = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
    return start + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))


def split_rounding(text: str) -> tuple[str, str] | None:
    """The exact side and the rounded side of one ≈."""
    exact, sign, rounded = text.partition(NEAR)
    return (exact.strip(), rounded.strip()) if sign and exact.strip() and NEAR not in rounded else None


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
