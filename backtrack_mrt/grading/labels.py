r"""The left side of ``|AB| = 6``: names of what was asked for, which may stand before the value or not."""

from __future__ import annotations

import re

_ARGUMENTS = r"(?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]=]*\])"
_INDEX = r"(?:_ ?(?:\{[^{}=]*\}|\w))"
_POINTS = r"[A-Z](?:'|[A-Z0-9])*"
_MARK = r"\\(?:overline|vec|overrightarrow|hat|widehat|bar|tilde)(?: ?[A-Za-z]|\{[^{}=]*\})"
_TRIGONOMETRIC = rf"\\(?:sin|cos|tan|cot|sec|csc) ?(?:\\angle ?)?(?:{_POINTS}|\\[a-z]+ ?|[a-z](?![A-Za-z]))"
_NAME = "|".join(
    (
        rf"\|(?:{_MARK}|{_POINTS}|[zw])\|",  # |AB|, |\vec{a}|; |x| = 6 is an equation to be solved
        rf"m?\\angle ?(?:{_POINTS}|\d|\{{[^{{}}=]*\}}|\\[a-z]+ ?)",
        rf"\\triangle ?{_POINTS}",
        rf"\[{_POINTS}\]",  # an area
        r"\\frac\{(?:d|\\partial )[^{}=]*\}\{(?:d|\\partial )[^{}=]*\}",
        _TRIGONOMETRIC,
        rf"(?:{_MARK}|\\text\{{[A-Za-z][A-Za-z ]*\}}(?: ?(?:\\triangle ?)?{_POINTS})?|\\[A-Za-z]+ ?"
        rf"|[A-Za-z]+(?: [A-Za-z]+)*){_INDEX}?(?:\^ ?\{{-1\}})?'*{_ARGUMENTS}?",
    )
)
# Sums, products and ratios of two or more names ("m + n = 12") are names too; with a number in it ("2x = 12") or a sign
# before it ("-x = 12") the left side is an equation.
_JOINED = rf"(?>{_NAME})(?> ?(?:\\cdot ?|[+*/:-]) ?(?>{_NAME}))* ?"  # atomic: nothing is read in two ways
NAMED = re.compile(rf"(?P<label>{_JOINED})(?<![<>!])=(?!=) ?")
_TURNED = re.compile(r"^([+-]?[\d.,/]+|[+-]?\\frac\{\d+\}\{\d+\}) ?= ?([A-Za-z])$")  # 6 = x
_NO_NAME = re.compile(
    r"(?<![A-Za-z])(?:not|no|never|wrong|false|except|isn|unless|if|or|frac|sqrt|left|right|pm|begin|text)(?![A-Za-z])"
)


def split_label(text: str) -> tuple[str, str] | None:
    """The name on the left side of an equation, and the rest; None where the left side is no mere name."""
    if "=" not in text:
        return None
    text = _TURNED.sub(r"\2=\1", text)
    found = NAMED.match(text)
    if found is None or _NO_NAME.search(
        found["label"].replace("\\text", "").replace("\\frac{d", "").replace("\\frac{\\partial", "")
    ):
        return None
    return found["label"].replace(" ", ""), text[found.end() :]
