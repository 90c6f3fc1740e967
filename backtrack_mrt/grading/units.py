r"""Units of measure, money, and the things that are counted, in one name each.

A unit is known from a table (with physics' units) or is the plural of a thing ("7 apples"). Number words, operator
words, Greek names and negations are neither: they change the number or the claim. Two different units are not equal.
"""

from __future__ import annotations

import re
from functools import lru_cache

from backtrack_mrt.grading.number_words import is_number_word

# Symbols, as they are written: here "M" is not "m". Prefixes are added below.
_SYMBOLS = """m g s A K mol cd N J W V C F H T Pa Hz eV L l rad sr Wb lm lx Bq Gy Sv kat bar cal Wh dB bit"""
_PREFIXES = ("k", "c", "m", "M", "G", "T", "d", "μ", "u", "n", "p", "h", "f")
_NAMES = (  # words, in any case, with or without an s; the first is the unit's name
    "m meter metre 米", "cm centimeter centimetre 厘米", "mm millimeter millimetre 毫米",
    "km kilometer kilometre kms 千米 公里", "in inch inche", "ft foot feet", "yd yard", "mi mile", "g gram gramme 克",
    "kg kilogram kilogramme kilo kgs 千克 公斤", "mg milligram", "lb pound lbs", "oz ounce", "ton tonne 吨",
    "L l liter litre 升", "mL ml milliliter millilitre 毫升", "gal gallon", "qt quart", "pt pint", "cup",
    "tsp teaspoon", "tbsp tablespoon", "s sec second 秒", "min minute mins 分钟", "h hr hour hrs 小时", "day 天",
    "week wk 周", "month 月", "yr year 年 岁", "decade", "century centurie", "$ dollar usd buck", "cent ¢",
    "€ euro eur", "£ gbp quid", "¥ yen yuan rmb jpy cny 元 円", "₹ rupee inr rs", "deg degree 度", "degC celsius",
    "degF fahrenheit", "rad radian", "acre", "hectare ha", "Hz hertz", "J joule", "N newton", "W watt", "V volt",
    "A ampere amp", "Ω ohm", "C coulomb", "F farad", "H henry henrie", "T tesla", "K kelvin", "Pa pascal", "mol mole",
    "atm atmosphere", "eV electronvolt", "cal calorie", "kcal kilocalorie", "dB decibel", "AU", "ly lightyear",
    "pc parsec", "erg", "dyn dyne", "gauss", "amu", "psi", "torr", "bit", "B byte", "rpm", "bpm", "M☉ msun",
    "Å angstrom",
)  # fmt: skip
_UNITS = {symbol: symbol for symbol in _SYMBOLS.split()}
_UNITS |= {p + s: ("μ" if p == "u" else p) + s for p in _PREFIXES for s in _SYMBOLS.split() if len(p + s) > 1}
_UNITS |= {name: names.split()[0] for names in _NAMES for name in names.split()}
_UNITS |= {"Ω": "Ω", "kΩ": "kΩ", "MΩ": "MΩ", "l": "L", "ml": "mL", "°C": "degC", "°F": "degF", "°": "deg", "%": "%"}
# Where a short name may be a product of variables, only these are read as units.
_CLASSIC = frozenset(("cm", "mm", "km", "kg", "mg", "ft", "in", "mi", "lb", "oz", "hr", "°C", "°F", "°", "$", "%"))
_WORDS = {name: unit for name, unit in _UNITS.items() if len(name) > 2 or not name.isascii() or name in _CLASSIC}
_COMPOSED = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h", "kWh": "kW*h", "Wh": "W*h"}
_COUNTING_WORDS = "个 只 本 人 名 次 种 张 条 件 块 支 辆 棵 朵 颗 页 道 位 unit piece item"
_COUNTERS = frozenset(_COUNTING_WORDS.split())
_IRREGULAR = "people children men women feet teeth mice geese fish sheep deer person child man woman cattle"
_PLURALS = frozenset(_IRREGULAR.split())
# Plurals by form that are no things, and words that make a second answer, a condition, or another number of the first.
_OTHER_CLAIMS = """plus minus times is was has does as us this thus its his hers yes less unless always perhaps besides
towards afterwards cos sinus square squares cube cubes root roots factorial factorials power powers log logs inverse
inverses multiple multiples negative negatives positive positives not no none never nor neither or and but maybe if to
between about around than are over under below above except approximately roughly nearly almost possibly wrong false
incorrect off right true correct squared cubed modulo mod choose base double triple doubled tripled halved quadruple
divided multiplied by into point percent per cent percents alpha beta gamma delta epsilon zeta eta theta iota kappa
lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega sin tan sec csc cot exp sqrt ln infinity infinities
primes digits digit unknown answers answer guess anything something everything all any each other others another either
both only least most up ago without excluding instead versus vs equals equal"""
_NO_THINGS = frozenset(_OTHER_CLAIMS.split())
_AFTERWORDS = re.compile(
    r" (?:left(?: over)?|remaining|in total|in all|altogether|total|each|old|long|tall|wide|high|deep)$"
)
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*|[^\x00-\x7f]+")
_FACTOR = re.compile(r"([^\^0-9]+?)(?:\^?\{?\(?([+-]?\d)\)?\}?)?")


def parse_unit(text: str, *, cautious: bool = False) -> str | None:
    r"""The one name of the unit that ``text`` (LaTeX or plain) is, "" for mere "units", None if it is none.

    cautious: a short name such as m, N or nm may as well be a product of variables, so it is no unit here.
    """
    return _parse_unit(_plain(text), cautious)


@lru_cache(maxsize=4096)
def _parse_unit(text: str, cautious: bool) -> str | None:
    if not text:
        return ""
    if cautious and any(
        len(word) < 3 and word.isalpha() and word.isascii() and word not in _CLASSIC
        for word in re.split(r"[*/ ]|\^.*", text)
    ):
        return None
    measured = _measured(text)
    return measured if measured is not None else _counted(text)


_PLAIN = [
    (re.compile(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}"), r"\1/\2"),
    (re.compile(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}"), r" \1 "),
    (re.compile(r"\\Omega|\u2126"), "Ω"),
    (re.compile(r"\\mu ?"), "μ"),
    (re.compile(r"\\(?:cdot|times)"), "*"),
    (re.compile(r"\^ ?(?:\{ ?\\circ ?\}|\\circ) ?|\\degree|\\circ"), "°"),
    (re.compile(r"\\(?=[$ ]|$)"), ""),
    (re.compile(r" *([*/^]) *"), r"\1"),
    (re.compile(r"(?<![a-z])(sq|cu)\. ?"), r"\1 "),
    (re.compile(r" +"), " "),
    (re.compile(r"([μ°]) (?=[a-zA-Z])"), r"\1"),
]


def _plain(text: str) -> str:
    r"""Without LaTeX: ``\frac{\text{m}}{\text{s}^2}`` is m/s^2."""
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".")


def _measured(text: str) -> str | None:
    """Products, quotients and powers of units in the table, e.g. "kg*m/s^2", "square feet", "miles per hour"."""
    text = _COMPOSED.get(text, re.sub(r" per (?:an? )?", "/", text))
    factors: dict[str, int] = {}
    sign, power = 1, 1
    for token in re.findall(r"[*/ ]|[^*/ ]+", text):
        if token == "/":
            sign = -1
        elif token == "*" or token == " ":
            continue
        elif token.lower() in ("square", "sq", "sq.", "squared"):
            power = 2
        elif token.lower() in ("cubic", "cu", "cu."):
            power = 3
        else:
            match = _FACTOR.fullmatch(token)
            name = match and _name(match[1])
            if not match or name is None:
                return None
            factors[name] = factors.get(name, 0) + sign * power * int(match[2] or 1)
            power = 1
    if power != 1 or not factors:
        return None
    names = sorted((name, exponent) for name, exponent in factors.items() if name and exponent)
    return " ".join(name if exponent == 1 else f"{name}^{exponent}" for name, exponent in names)


def _name(word: str) -> str | None:
    """The unit of one word, "" for counters such as "units" and 个."""
    word = word.rstrip(".")
    if word in _UNITS:
        return _UNITS[word]
    lower = word.lower()
    if lower in _COUNTERS or lower.removesuffix("s") in _COUNTERS:
        return ""
    return _WORDS.get(lower) or (_WORDS.get(lower.removesuffix("s")) if len(lower) > 2 else None)


def _counted(text: str) -> str | None:
    """A thing in the plural and what describes it, e.g. "red apples", marked with a ~."""
    text = _AFTERWORDS.sub("", text.lower())
    head, _, _ = text.partition(" of ")
    words = text.replace(" of ", " ").split()
    last = head.split()[-1] if head.split() else ""
    if not 1 <= len(words) <= 5 or not all(_WORD.fullmatch(word) and word.isascii() for word in words):
        return None
    if any(word in _NO_THINGS or is_number_word(word) or len(word) < 2 for word in words):
        return None
    if last not in _PLURALS and not (len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is"))):
        return None
    return "~" + " ".join(word.removesuffix("s") for word in words)


def same_unit(first: str, second: str) -> bool:
    """Whether two units can stand for each other: equal, one absent, or things of a common name."""
    if first == second or not first or not second:
        return True
    return first[0] == second[0] == "~" and not set(first[1:].split()).isdisjoint(second[1:].split())
