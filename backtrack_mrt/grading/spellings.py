r"""The table of spellings: what people write for one and the same thing, and why it is the same.

Applied to the gold and to the answer alike (see canonical.py), top to bottom. Only the writing changes here, never the
mathematics. A line is (pattern, replacement, reason).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# 1. Single characters -------------------------------------------------------------------------------------------------

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‒": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*",
    "÷": "/", "⁄": "/", "∕": "/", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F",
    "≤": r"\le ", "≦": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "≧": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "±": r"\pm ",
    "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∖": r"\setminus ", "∅": r"\emptyset ", "≈": r"\approx ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ", "∠": r"\angle ", "△": r"\triangle ", "∨": r"\lor ",
    "∧": r"\land ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∶": ":", "…": "...",
    "’": "'", "‘": "'", "′": "'", "“": '"', "”": '"', "、": ",", "。": ".", "【": "[", "】": "]", "〈": "(", "〉": ")",
    "⊥": r"\perp ", "⟂": r"\perp ", "∥": r"\parallel ", "º": r"^\circ ", "˚": r"^\circ ", "﹣": "-", "﹢": "+",
    "㎜": "mm", "㎝": "cm", "㎞": "km", "㎏": "kg", "㎎": "mg", "㎡": "m^2", "㎠": "cm^2", "㎥": "m^3",
    "Ω": r"\Omega ", "µ": r"\mu ", "¢": r"\text{ cents}", "￥": "¥", "￡": "£", "￠": r"\text{ cents}",
    "\u00a0": " ", "\u2002": " ", "\u2003": " ", "\u2009": " ", "\u200a": " ", "\u202f": " ", "\u3000": " ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "ℯ": "e", "ⅇ": "e", "ⅈ": "i",
}  # fmt: skip
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi - pi rho - sigma tau upsilon phi chi"
_SIGNS |= {chr(ord("α") + place): f"\\{name} " for place, name in enumerate(_GREEK.split()) if name != "-"}
_SIGNS |= {"ψ": r"\psi ", "ω": r"\omega ", "Δ": r"\Delta "}
# Full-width punctuation and letters of East Asian keyboards. Not their digits: `int` would read them too, and a reward
# for look-alike digits teaches the policy to write them.
_SIGNS |= {chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F) if not chr(code).isdigit()}
_SIGNS |= {  # 𝑥, 𝜋: the letters of formulas, for the same reason without their digits
    chr(code): _SIGNS.get(plain, plain)
    for code in range(0x1D400, 0x1D7CE)
    if (plain := unicodedata.normalize("NFKC", chr(code))) != chr(code)
}
_SIGNS |= {  # ½ ⅓ ⅞ and the like
    character: r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", character).split("⁄"))
    for character in "½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒"
}
_UNICODE = str.maketrans(_SIGNS)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₓ", "0123456789+-()nix", strict=True))
_RAISED_RUN = re.compile(f"[{''.join(_RAISED)}]+")
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")
_SMALL_FRACTION = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀₁₂₃₄₅₆₇₈₉]+)")
_UNSEEN = "\ufeff\u200b\u2060"  # the marks that editors leave at the ends of files and copied texts


def translate(text: str) -> str:
    """Write the usual Unicode signs in ASCII LaTeX and strip the ends: ``x¹⁰`` is ``x^{10}``, ``1⅓`` a mixed number."""
    text = text.strip()
    if text.isascii():
        return text
    text = text.strip(_UNSEEN).strip()
    text = _SMALL_FRACTION.sub(lambda m: rf"\frac{{{_digits(m[1])}}}{{{_digits(m[2])}}}", text)
    text = _RAISED_RUN.sub(lambda run: f"^{{{''.join(map(_RAISED.__getitem__, run[0]))}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{''.join(map(_LOWERED.__getitem__, run[0]))}}}", text)
    return text.translate(_UNICODE).strip()


def _digits(small: str) -> str:
    return "".join((_RAISED | _LOWERED)[character] for character in small)


# 2. Names of functions ------------------------------------------------------------------------------------------------

FOREIGN = {  # names of the same functions in other countries and programs
    "tg": "tan", "ctg": "cot", "cotg": "cot", "cosec": "csc", "arctg": "arctan", "arcctg": "arccot",
    "arccotg": "arccot",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sh": "sinh", "ch": "cosh", "th": "tanh", "lg": "log_{10}",
    "cbrt": "sqrt[3]", "infinity": "infty", "inf": "infty", "oo": "infty",
}  # fmt: skip
_KNOWN = """sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth ln log exp sqrt cbrt
max min gcd lcm det pi infty"""
_LETTERS = "alpha beta gamma delta epsilon theta lambda sigma omega phi psi rho tau"
FUNCTIONS = frozenset(_KNOWN.split()) | frozenset(FOREIGN)
# In plain text two letters that are also English or units of time are no function: "5 th" is not a hyperbolic tangent.
_PLAIN = sorted((FUNCTIONS | frozenset(_LETTERS.split())) - {"sh", "ch", "th"}, key=len, reverse=True)
_ANY = "|".join(sorted(FUNCTIONS | frozenset(_LETTERS.split()), key=len, reverse=True))
_UPRIGHT = re.compile(rf"\\(?:operatorname\*?|mathrm|text|textrm|mathop|rm)\s*\{{\s*({_ANY})\s*\}}")
_COMMAND = re.compile(rf"\\({'|'.join(sorted(FOREIGN, key=len, reverse=True))})(?![A-Za-z])")
_SPELLED = re.compile(
    rf"(?<![\\A-Za-z{{])({'|'.join(_PLAIN)})(?=[xyz]?(?![A-Za-z]))|(?<=[{{])({'|'.join(_PLAIN)})(?![A-Za-z}}])"
)


def respell_functions(text: str) -> str:
    r"""``\operatorname{tg} x``, ``tg x`` and ``\tg x`` as ``\tan x``; ``sin(2x)`` and ``pi/6`` with their backslash."""
    if not any(character.isalpha() for character in text):
        return text
    if "\\" in text:
        text = _UPRIGHT.sub(_latex_name, text)
        text = _COMMAND.sub(_latex_name, text)
    return _SPELLED.sub(_latex_name, text)


def _latex_name(match: re.Match[str]) -> str:
    name = next(group for group in match.groups() if group)
    return f"\\{FOREIGN.get(name, name)} "


# 3. Everything else ---------------------------------------------------------------------------------------------------

_Replacement = str | Callable[[re.Match[str]], str]
_NAMED = {"lt": "<", "gt": ">", "langle": "(", "rangle": ")", "lbrace": r"\{", "rbrace": r"\}", "vert": "|"}
_NAMED |= {"lvert": "|", "rvert": "|", "mid": "|", "colon": ":", "vee": r"\lor ", "wedge": r"\land "}
_TABLE: list[tuple[str, _Replacement, str]] = [
    (r"^(?:\s*(?:[=:]|\\(?:therefore|implies|Rightarrow|Longrightarrow)(?![A-Za-z])))+", "", "what leads to an answer"),
    (r"(?i)^(\\text\{ ?)?(?:the )?(?:(?:final|correct) )?answer(?: is:?|:)(?(1) ?\})\s*(?=\S)", "", "that in words"),
    (r"(?:\s|\\\\|\\(?:checkmark|blacksquare|square|qed)(?![A-Za-z]))+$", "", "a sign that it is done"),
    (r"^\\(?:boxed|fbox)\s*(?:\{(.*)\}$|(?=\d))", r"\1", "a box"),
    (r"(?<=\d)\{,\}(?=\d)|(?<=\d),(?: |\\,)?\\! ?(?=\d{3})", ",", "the comma of thousands, as LaTeX spaces it"),
    (r"\\!", "", "negative space"),
    (r"(?<!\\)\$ ?\$(?!\$)(?=.)", " ", "a formula in two pieces"),
    (r"\\(?:left|right) ?\.", "", "a bracket without its other half"),
    (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|(?:no)?limits)(?![A-Za-z])", "", "sizes"),
    (r"\\(?:small|[lL]arge|LARGE|[hH]uge)(?![A-Za-z])", "", "sizes of letters"),
    (r"(?<!\\)\\[,;:> ]|~|\\(?:q?quad|thinspace|enspace)(?![A-Za-z])|\\[hv]space\*?\{[^{}]*\}|\s", " ", "spaces"),
    (r"\\(?:color|textcolor)\s*\{[^{}]*\}\s*", "", "colour changes nothing"),
    (r"\\(?:R|reals|Reals|Bbb ?R|Bbb ?\{R\}|mathbf ?\{R\})(?![A-Za-z])", r"\\mathbb{R}", "the real numbers"),
    (r"(?<=[A-Za-z}]) +(?=\{)", "", "space before a brace"),
    (r"\\(?:underline|mathop|ensuremath|mathit|mathsf|mathbf|bm|boldsymbol|pmb|emph)\s*\{", "{", "emphasis"),
    (r"(?:^|\{)\s*\\(?:rm|bf|it|sf|tt)\s+([^{}]*)(?:\}|$)", r"\\text{\1}", "old fonts"),
    (r"\\(?:rm|bf|it|sf|tt)\s*(?=\{)", r"\\text", "old fonts"),
    (r"(?:^|\{)([^{}]*)\\choose(?![A-Za-z])([^{}]*)(?:\}|$)", r"\\binom{\1}{\2}", "plain TeX's binomial"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac", "size of a fraction"),
    (r"(?:^|\{)([^{}]*)\\over(?![A-Za-z])([^{}]*)(?:\}|$)", r"\\frac{\1}{\2}", "plain TeX's fraction"),
    (r"\\mathrm\s*\{\s*([eid])\s*\}", r"\1", "upright constants e and i, upright d"),
    (r"\\(?:mathrm|textbf|[hm]box|textnormal|textrm|textit|textsf|textup|operatorname\*?)\s*\{", r"\\text{", "upright"),
    (r"\\text\{\\text\{([^{}]*)\}\}", r"\\text{\1}", "text in text"),
    (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<=", r"\\le ", "less or equal"),
    (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>=", r"\\ge ", "greater or equal"),
    (r"\\(?:neq|not\s*=)(?![A-Za-z])|!=|<>", r"\\ne ", "not equal"),
    (r"\\(vec|hat|bar|tilde|overline) ([A-Za-z])(?![A-Za-z])", r"\\\1{\2}", "a mark over one letter"),
    (r"\\bar(?![A-Za-z])", r"\\overline", "a bar"),
    (r"==|:=", "=", "equality as programs write it"),
    (r"\\[lc]?dots[bcimo]?(?![A-Za-z])", "...", "dots"),
    (r"(?<=[A-Za-z])\^ ?(?:\\prime|\{ ?\\prime ?\})(?![A-Za-z])", "'", "a prime by name"),
    (rf"\\({'|'.join(_NAMED)})(?![A-Za-z])", lambda m: _NAMED[m[1]], "signs by their names"),
    (r"\\(?:approxeq|doteq)(?![A-Za-z])", r"\\approx ", "approximately"),
    (r"\\lbrack(?![A-Za-z]) ?", "[", "bracket by name"),
    (r" ?\\rbrack(?![A-Za-z])", "]", "bracket by name"),
    (r"\\varnothing(?![A-Za-z])|\\\{ ?\\\}", r"\\emptyset ", "the empty set"),
    (r"\\?log ?_ ?(?:\{ ?e ?\}|e)(?![A-Za-z])", r"\\ln ", "the natural logarithm by its base"),
    (r"(?<![A-Za-z\\])abs\(([^()]*)\)", r"|\1|", "absolute value as programs write it"),
    (r"\*\*", "^", "power as programs write it"),
    (r"\^ ?([+-]?\d+)(?![\d.])", r"^{\1}", "an exponent takes the whole number"),
    (r"\^\(([^(){}]*)\)", r"^{\1}", "an exponent takes the whole bracket"),
    (r"_ ?(\d+)", r"_{\1}", "an index takes the whole number"),
    (r"^(-?\d+)_\{(?:10|\\text\{ ?ten ?\})\}$", r"\1", "a numeral of base ten"),
    (r"\bnp\.(?=[a-z])", "", "golds written in Python (Minerva)"),
    (r"\\text\{ ?(?:,? ?or|,? ?and) ?\}", lambda m: " or " if "or" in m[0] else " and ", "conjunctions as plain words"),
    (r"\\text\{ ?,? ?(or|and) (?=[^{} ])", r" \1 \\text{", "a conjunction before more text"),
    (r" ?\\text\{ ?(?:is )?to ?\} ?", " to ", "a ratio in words"),
    (r"(?<=[\d})])or(?=[\d\\({-])", " or ", "2or3"),
    (r"(?<![\^_\]}A-Za-z\\{])\{([+-]?\d+)\}", r"\1", "a number in idle braces"),
    (r"(?<=\d) ?\\?(?:\\text\{ ?)?(?:per ?cent|pct)(?:age)?(?![A-Za-z]) ?\}?", r"\\%", "percent by name"),
]  # fmt: skip
TABLE = [(re.compile(pattern), replacement) for pattern, replacement, _ in _TABLE]
