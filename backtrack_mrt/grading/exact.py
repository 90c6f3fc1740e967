r"""Numbers as exact rationals with their unit: 1,234.50, ``-\frac{3}{4}``, ``0.\overline{3}``, ``3\times10^8``, 5%.

Every function takes canonical text (see canonical.py) and returns None for what is no such number. No floats: two
numbers are equal or they are not, and 0.999999 is not 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPONENT = 400  # of ten; larger ones are left to the worker
MAX_POWER_BITS = 1 << 15  # of an integer power such as 2^{100}

_NUMBER = r"(?:(?:\d{1,3}(?:, ?\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)"
_SIGNED = rf"[+-]?{_NUMBER}"
_PLAIN = re.compile(rf"([+-]?)({_NUMBER})")
_FRACTION = re.compile(rf"([+-]?)\\frac\{{({_SIGNED})\}}\{{({_SIGNED})\}}")
_SLASH = re.compile(rf"([+-]?)({_NUMBER}) ?/ ?({_SIGNED})")
_MIXED = re.compile(r"([+-]?)(\d+) ?(?:\\frac\{(\d+)\}\{(\d+)\}| (\d+)/(\d+))")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar) ?(?:\{(\d+)\}|(\d))")
_SCIENTIFIC = re.compile(
    rf"([+-]?)(?:({_NUMBER}) ?(?:\\times|\\cdot|\*|x) ?)?10 ?(?:\^|\*\*) ?(?:\{{([+-]?\d+)\}}|([+-]?\d+))"
)
_E_NOTATION = re.compile(rf"([+-]?)({_NUMBER})[eE]([+-]?\d+)")
_POWER = re.compile(r"([+-]?)(\d+) ?(?:\^|\*\*) ?(?:\{(\d+)\}|(\d+))")
_COUNTING = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
_WORDS = {word: Fraction(value) for value, word in enumerate(_COUNTING.split())}

_WORDED = re.compile(r"\\text\{ ?([^{}]*?) ?\}")
_CURRENCY = re.compile(r"^([+-]?)(?:\\?\$|\\text\{\\?\$\}|€|£) ?([+-]?)(?=[\d.\\])")
_CURRENCY_AFTER = re.compile(r" ?(?:\\?\$|€|£)$")
_PERCENT = re.compile(r" ?(?:\\?%|(?:\\text\{ ?)?percent\}?)$")
_DEGREE = re.compile(r"(?:\^ ?(?:\{ ?\\circ ?\}|\\circ)|\\degree)$")
_TEXT_UNIT = re.compile(r" ?\\text\{([^{}]*)\}((?:\^ ?(?:\{\d\}|\d))?)$")
_BARE_UNIT = re.compile(r"(?<=[\d}).]) ?([A-Za-z][A-Za-z ./]*)((?:\^ ?(?:\{\d\}|\d))?)$")
# Words that make a second answer, a condition or a product out of what looks like a unit.
_HEDGES = """or and not no but maybe perhaps if to between about around than plus minus times is are was over under
except approximately roughly nearly almost i e sin cos tan log exp sqrt alpha beta gamma delta theta lambda sigma"""
_NO_UNIT = frozenset(_HEDGES.split()) | frozenset(_WORDS)
# Names of one unit. A unit outside this table is decoration ("5 apples"): it never makes two equal numbers differ.
_UNITS = {
    name: names.split()[0]
    for names in (
        "cm centimeter centimetre", "mm millimeter millimetre", "km kilometer kilometre", "m meter metre",
        "in inch inche", "ft foot feet", "yd yard", "mi mile", "g gram", "kg kilogram", "mg milligram", "lb pound",
        "oz ounce", "l liter litre", "ml milliliter millilitre", "gal gallon", "s sec second", "min minute",
        "h hr hour", "day", "week", "month", "yr year", "mph", "kph km/h kmh", "m/s", "$ dollar usd buck", "cent",
        "€ euro", "£", "deg degree", "rad radian", "acre", "hz", "j joule", "n newton", "w watt", "v volt", "a ampere",
    )
    for name in names.split()
}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """A number, whether a percent sign follows it, and its unit ("" if it has none; lower case, one name each)."""

    value: Fraction
    percent: bool = False
    unit: str = ""


def parse_quantity(text: str) -> Quantity | None:
    """The number that ``text`` is, with its unit, or None if it is anything else."""
    worded = _WORDED.fullmatch(text)
    value = parse_rational(worded[1] if worded else text)
    if value is not None:
        return Quantity(value)
    body, percent, unit = split_unit(text)
    value = parse_rational(body)
    return None if value is None else Quantity(value, percent, unit)


def split_unit(text: str) -> tuple[str, bool, str]:
    """``text`` without percent sign, currency and unit; whether it had the percent sign; the unit's name."""
    body, unit = text, ""
    currency = _CURRENCY.match(body)
    if currency:
        body, unit = currency[1] + currency[2] + body[currency.end() :], "$" if "$" in currency[0] else currency[0][-1]
    after = None if currency else _CURRENCY_AFTER.search(body)
    if after:
        body, unit = body[: after.start()], after[0][-1]
    percent = _PERCENT.search(body)
    if percent:
        return body[: percent.start()].rstrip(), True, unit
    degree = _DEGREE.search(body)
    if degree:
        return body[: degree.start()].rstrip(), False, "deg"
    for pattern in (_TEXT_UNIT, _BARE_UNIT):
        found = pattern.search(body)
        if found and found.start():
            bare, apart = pattern is _BARE_UNIT, found[0].startswith(" ")
            name = _unit_name(found[1], found[2], bare=bare, apart=apart)
            if name is not None:
                return body[: found.start()].rstrip(), False, name or unit
    return body, False, unit


def _unit_name(words: str, power: str, *, bare: bool, apart: bool) -> str | None:
    r"""The one name of a unit, "" for "units", None if the words are none.

    Outside ``\text`` (``bare``) a single letter is a variable: 2m is a product, 2 cm is not. A word that is not in the
    table must stand ``apart`` from the number: 7 apples, not 7xyz.
    """
    parts = [part.rstrip(".") for part in words.lower().split()]
    if not parts or len(parts) > 4 or not _NO_UNIT.isdisjoint(parts):
        return None
    if not all(re.fullmatch("[a-z/.]+", part) for part in parts):
        return None
    names = [_UNITS.get(part) or _UNITS.get(part.removesuffix("s")) for part in parts]
    spelled = list(zip(parts, names, strict=True))
    if bare and any(len(part) < 2 or not (name or (apart and len(part) > 2)) for part, name in spelled):
        return None
    full = [name or part.removesuffix("s") for part, name in spelled]
    exponent = power.strip("^{} ")
    for word, digit in (("square", "2"), ("sq", "2"), ("cubic", "3"), ("cu", "3")):
        if full[0] == word:
            full, exponent = full[1:], digit
    unit = "".join(full)
    return "" if unit in ("", "unit") else unit + exponent


def same_unit(first: str, second: str) -> bool:
    """Whether two units can stand for each other: equal, one absent, or one of them mere decoration."""
    known = _UNITS.values()
    return first == second or not (first.rstrip("23") in known and second.rstrip("23") in known)


def parse_rational(text: str) -> Fraction | None:
    """The exact value of a number without a unit, or None."""
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    match = _PLAIN.fullmatch(text)
    if match:
        return _signed(match[1], _decimal(match[2]))
    if not text[:1].isascii() or text.lower() in _WORDS:
        return _WORDS.get(text.lower())
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
        return _signed(match[1], _repeating(match[2], match[3], match[4] or match[5]))
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
