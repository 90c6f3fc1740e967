r"""Refuse, before any parser sees it, a text that is not an honest answer or that would be costly to read.

Model text is untrusted, and a policy that is rewarded by a parser will find the parser's weak spots. Each guard is one
rule with one reason. They only save time: whatever passes them still runs under the limits of the worker process.
"""

from __future__ import annotations

import re
import unicodedata

from backtrack_mrt.grading.spellings import translate

MAX_CHARS = 512  # the longest gold of the usual data sets has 159
MAX_DEPTH = 24  # nested brackets
MAX_DIGITS = 400  # in one run; Python refuses to convert more than 4,300
MAX_POWER_DIGITS = 4  # digits of an exponent: 2^{9999} is read, 2^{10000} is not

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# Categories without a place in an answer: control, format (zero width, bidirectional), surrogate, private, unassigned,
# and every digit outside ASCII, which `int` would read as if it were one.
_BAD_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Nd", "Nl", "No"))
_DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_BRACKET = re.compile(r"\\.|[{}()\[\]]", re.DOTALL)
_POWER = re.compile(r"\^|\*\*")
_LONG_EXPONENT = re.compile(rf"\d{{{MAX_POWER_DIGITS + 1}}}")
_SCIENTIFIC = re.compile(rf"\d\.?[eE][+-]?\d{{{MAX_POWER_DIGITS}}}")
_FACTORIAL = re.compile(r"\d{4}\s*!|![\s)}\]]*!|\\binom\s*\{?\D*\d{5}")
_MARKER = re.compile(r"<\||\|>|__")
_RESTATED = re.compile(
    r"\\(?:sum|prod|i{0,3}nt|oint|lim|limsup|liminf|simeq|sim|gcd|lcm|[bp]?mod|det|Gamma|zeta)(?![A-Za-z])"
)
_NEWS = re.compile(r"[^\W_]|\\infty|\\emptyset|\\varnothing")  # something that says more than punctuation
SIGNS = re.compile(r"[+-]+(?:,[+-]+)*")


def check_characters(text: str) -> str | None:
    """Only characters that can stand in a written answer: no control, format or private ones, no foreign digits."""
    if _CONTROL.search(text):
        return "holds a control character"
    if not text.isascii():
        for character in text:
            if ord(character) > 127 and unicodedata.category(character) in _BAD_CATEGORIES:
                return f"holds the character U+{ord(character):04X}"
    return None


def check_brackets(text: str) -> str | None:
    """Braces are balanced, and no bracket is nested deeper than `MAX_DEPTH` (parsers recurse)."""
    braces = depth = 0
    for match in _BRACKET.finditer(text):
        token = match.group()
        if token in "{([":
            depth += 1
            braces += token == "{"
        elif token in "})]":
            depth -= 1
            braces -= token == "}"
        if braces < 0:
            return "has a closing brace too many"
        if depth > MAX_DEPTH:
            return f"is nested deeper than {MAX_DEPTH}"
    return "has an open brace" if braces else None


def check_digits(text: str) -> str | None:
    """No run of more than `MAX_DIGITS` digits: arithmetic on it is slow, and `int` raises on very long ones."""
    return f"has more than {MAX_DIGITS} digits in a row" if _DIGIT_RUN.search(text) else None


def check_markers(text: str) -> str | None:
    """No chat markers and no double underscores: they are never part of an answer and steer what reads them."""
    return "holds a marker (<| |> __)" if _MARKER.search(text) else None


def check_powers(text: str) -> str | None:
    """No number that explodes when evaluated: power towers, long exponents, factorials of large or nested arguments."""
    if _SCIENTIFIC.search(text) or _FACTORIAL.search(text):
        return "has a huge exponent or factorial"
    for match in _POWER.finditer(text):
        if not text[: match.start()].strip():
            continue  # **9** is printed in bold
        exponent, following = _exponent(text, match.end())
        if _LONG_EXPONENT.search(exponent.replace(",", "")):
            return "has a huge exponent"
        inner = list(_POWER.finditer(exponent))
        numeric = any(exponent[: inside.start()].rstrip()[-1:].isdigit() for inside in inner)
        # e^{-x^2} is an honest answer, 10^{10^{10}} and anything three storeys high is not.
        if numeric or len(inner) > 1 or following.startswith(("^", "**")):
            return "has a power tower"
    return None


def _exponent(text: str, start: int) -> tuple[str, str]:
    """The argument of the ``^`` that ends at ``start``, and the text after it."""
    rest = text[start:].lstrip()
    rest = rest.removeprefix("\\left").removeprefix("-").lstrip()
    if rest[:1] in ("{", "("):
        depth = 0
        for index, character in enumerate(rest):
            depth += (character in "{(") - (character in "})")
            if depth == 0:
                return rest[: index + 1], rest[index + 1 :].lstrip()
        return rest, ""
    token = re.match(r"\d+|\\?[A-Za-z]+|.?", rest, re.DOTALL)
    end = token.end() if token else 0
    return rest[:end], rest[end:].lstrip()


def check_restated(text: str, gold: str) -> str | None:
    r"""No sum, product, integral, limit, gcd, remainder, determinant or ≈ unless the gold has the same one.

    They restate the question instead of answering it, and ``7 \approx 8`` would count for 7.
    """
    for match in _RESTATED.finditer(text):
        if match.group() not in gold:
            return f"restates the question with {match.group()}"
    return None


def refuse(answer: str, gold: str) -> str | None:
    """Why ``answer`` is not read at all (then it is UNPARSABLE), or None. What the gold itself has is allowed."""
    if len(answer) > MAX_CHARS:
        return f"is longer than {MAX_CHARS} characters"
    reason = check_characters(answer) or check_markers(answer) or check_brackets(answer) or check_digits(answer)
    if reason is None and not check_powers(gold):
        reason = check_powers(answer)
    return reason or check_restated(answer, gold)


def check_gold(gold: str) -> str | None:
    """Why ``gold`` cannot serve as a reference answer, or None if it can; to be asked when a data set is loaded.

    Unusable are: not a string, empty, longer than `MAX_CHARS`, nothing but punctuation (unless it is a pattern of two
    or more signs such as ``+-,-+``), control characters, unbalanced braces. Starts no process, takes microseconds.
    """
    if not isinstance(gold, str):
        return f"is not a string but {type(gold).__name__}"
    text = gold.strip()
    if not text:
        return "is empty"
    if len(text) > MAX_CHARS:
        return f"is longer than {MAX_CHARS} characters"
    text = translate(text)  # ½ and ² are read like their LaTeX
    if not _NEWS.search(text) and not (len(text) > 1 and SIGNS.fullmatch(text)):
        return "says nothing: it holds no letter, digit or sign pattern"
    return check_characters(text) or check_markers(text) or check_brackets(text) or check_digits(text)
