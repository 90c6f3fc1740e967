r"""Find the answer a text puts in its last ``\boxed{}``."""

from __future__ import annotations

import re

# An opened box, a box of one token as TeX allows it (\boxed 9, \boxed\frac{1}{2}), an escaped character (so that `\{`
# is no brace), or a brace. Every alternative starts at its own character and none can backtrack over another's, which
# keeps the scan linear in the length of the text.
_TOKEN = re.compile(
    r"\\(?:boxed|fbox)\s*\{"
    r"|\\(?:boxed|fbox)\s*"
    r"(?P<token>[-+]?\d+(?:[.,/]\d+)*%?|[-+]?\\[dt]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}|\s[A-Za-z](?![A-Za-z]))"
    r"|\\.|[{}]",
    re.DOTALL,
)


def extract_boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{…}`` or ``\fbox{…}``, or None if there is none.

    "Last" is the one that starts last, so of two nested boxes the inner one counts. A box without its closing brace
    is skipped: a half-written answer earns nothing. A box without braces takes the whole number, fraction or letter.
    Braces are matched by counting, in one pass over the text.
    """
    if not isinstance(text, str):
        return None
    boxes: list[int | None] = []  # one entry per open brace: where the content of the box starts, None for a bare brace
    best_start, best_end = -1, -1
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match["token"]:
            best_start, best_end = match.span("token")
        elif token == "}":
            start = boxes.pop() if boxes else None
            if start is not None and start > best_start:
                best_start, best_end = start, match.start()
        elif token == "{":
            boxes.append(None)
        elif token.endswith("{") and len(token) > 2:
            boxes.append(match.end())
    return None if best_start < 0 else text[best_start:best_end].strip()
