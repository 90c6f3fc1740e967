r"""One spelling for what can be written in many: LaTeX spacing, sizes, fraction styles, wrappers, Unicode signs.

Only spellings change here, never the mathematics; two texts with the same `key` are the same answer.
"""

from __future__ import annotations

import re

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ",
        "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ",
        "≈": r"\approx ", "√": r"\sqrt ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}", "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])")
_SPACES = re.compile(r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\s")
_NAMES = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:mathrm|textbf|mbox|textnormal|textrm|textit|textsf|operatorname)\s*\{"), r"\\text{"),
    (re.compile(r"\\text\s+\{"), r"\\text{"),
    (re.compile(r"\\math(?:bf|it|sf)\s*\{"), "{"),
    (re.compile(r"\\leq(?:slant)?(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\geq(?:slant)?(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\\l(?:angle|brack)(?![A-Za-z])"), "("),
    (re.compile(r"\\r(?:angle|brack)(?![A-Za-z])"), ")"),
    (re.compile(r"\bnp\.(?=[a-z])"), r"\\"),  # Minerva has golds in Python
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
]
_ARGUMENT = r"(?:\{\s*([^{}]*?)\s*\}|([0-9A-Za-z]|\\pi(?![A-Za-z])))"
_FRACTION = re.compile(rf"\\frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
_ROOT = re.compile(r"\\sqrt\s*([0-9A-Za-z])")
_LOOSE_SPACE = re.compile(r"(?<=[^0-9A-Za-z,;]) +| +(?=[^0-9A-Za-z])")
_CONJUNCTION = re.compile(r"\\text\{\s*,?\s*(?:or|and)\s*\}\s*,?|(?<=[\w})\]]) *,? (?:or|and) (?=[\w\\({\[-])")
_WRAPPERS = [("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ('"', '"')]
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ARTICLE = re.compile(r"^(?:the|an?) ")


def translate(text: str) -> str:
    """Write the usual Unicode signs in ASCII LaTeX and strip the ends."""
    text = text.strip()
    return text if text.isascii() else text.translate(_UNICODE).strip()


def canonical(text: str) -> str:
    """The common spelling of ``text``; linear in its length for the lengths that the guards let through."""
    text = _unwrap(text)
    text = text.replace(r"\!", "").replace("{,}", ",")
    text = _SIZES.sub("", text)
    text = _SPACES.sub(" ", text)
    if "\\" in text or "np." in text:
        for pattern, replacement in _NAMES:
            text = pattern.sub(replacement, text)
        text = _FRACTION.sub(lambda m: rf"\frac{{{m[1] or m[2] or ''}}}{{{m[3] or m[4] or ''}}}", text)
        text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _CONJUNCTION.sub(", ", text)
    text = re.sub(" +", " ", text)
    text = _LOOSE_SPACE.sub("", text).strip()
    text = re.sub(r", *, *", ", ", text)
    stripped = _unwrap(_strip_stop(text))
    while stripped != text:  # "$7.$."
        text, stripped = stripped, _unwrap(_strip_stop(stripped))
    return text


def _strip_stop(text: str) -> str:
    """Without a full stop, comma or semicolon at the end, which belong to the sentence; an ellipsis stays."""
    stripped = text.rstrip(".,;: ")
    return text if not stripped or stripped.endswith("\\") or text.endswith("...") else stripped


def _unwrap(text: str) -> str:
    """Without dollar signs, quotes, braces or stars around the whole."""
    text = text.strip()
    changed = True
    while changed:
        changed = False
        for left, right in _WRAPPERS:
            inside = text[len(left) : len(text) - len(right)]
            if len(text) > len(left + right) and text.startswith(left) and text.endswith(right) and left not in inside:
                text, changed = inside.strip(), True
        if text.startswith("{") and text.endswith("}") and closes_at_end(text):
            text, changed = text[1:-1].strip(), True
    return text


def closes_at_end(text: str) -> bool:
    """Whether the bracket that opens ``text`` is closed by its last character."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "({[") - (character in ")}]")
        if depth == 0:
            return index > 0 and index == len(text) - 1
    return False


_COMMAND = re.compile(r"(\\[A-Za-z]+) +(?=[A-Za-z])")
_SHORT_SCRIPT = re.compile(r"([_^])([0-9A-Za-z])")
_IDLE_SPACE = re.compile(r"(?<!\d) +| +(?!\d)")


def key(text: str) -> str:
    """``text`` (canonical) without the spaces that mean nothing: equal keys are equal answers."""
    if " " in text:
        # A space ends a command's name, and it stands between the parts of 1 1/2; products read the same without.
        text = _IDLE_SPACE.sub("", _COMMAND.sub("\\1\0", text)).replace("\0", " ")
    return _SHORT_SCRIPT.sub(r"\1{\2}", text).replace("+\\infty", "\\infty")


def words(text: str) -> str:
    r"""``text`` (canonical) as a reader hears it: without ``\text``, case, articles, stops, quotes and spaces."""
    text = _TEXT.sub(r"\1", text).casefold()
    text = _ARTICLE.sub("", re.sub(r"[.'\"\\{}]", "", text).strip())
    return re.sub(r"[\s-]+", "", text)


def split_top(text: str, separators: str) -> list[str]:
    """``text`` split at the separators that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "({[":
            depth += 1
        elif character in ")}]":
            depth -= 1
        elif character in separators and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    return parts
