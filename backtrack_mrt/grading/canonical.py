r"""One spelling for what can be written in many: the table of spellings.py, brackets, fractions, roots, conjunctions.

Only spellings change here, never the mathematics; two texts with the same `key` are the same answer.
"""

from __future__ import annotations

import re

from backtrack_mrt.grading.spellings import TABLE, respell_functions

_ARGUMENT = r"(?:\{\s*([^{}]*?)\s*\}|([0-9A-Za-z]|\\pi(?![A-Za-z])))"
_FRACTION = re.compile(rf"\\frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
_ROOT = re.compile(r"\\sqrt ?(\[[^\[\]]*\])? ?(?![{\[ ])")
_RADICAND = re.compile(r"\d+(?:\.\d+)?|[A-Za-z]|\\frac\{[^{}]*\}\{[^{}]*\}|\\(?!frac|sqrt)[A-Za-z]+")
_REVERSED = re.compile(r"(?<![A-Za-z}])([\[\]])([^\[\]()]*[,;][^\[\]()]*)([\[\]])")
_LOOSE_SPACE = re.compile(r"(?<=[^0-9A-Za-z,;]) +| +(?=[^0-9A-Za-z])")
_PLACE = re.compile(r"(hundred|thousand|million|billion|trillion) and (?=[a-z0-9])")
_AND_A_HALF = re.compile(r"(?<=\d) and (?:a |one )(half|third|quarter)(?![A-Za-z])")
_PARTS = {"half": 2, "third": 3, "quarter": 4}
_CONJUNCTION = re.compile(
    r"(?<=[\w})\]]) *,? (or|and) (?=[\w\\({\[-])|,? ?\\(lor|land)(?![A-Za-z]) ?|(?<=,)(?: )(or|and) "
)
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne|in)(?![A-Za-z])")
_WRAPPERS = [("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ('"', '"')]
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ARTICLE = re.compile(r"^(?:the|an?) ")
_SETS = {  # in words
    r"\emptyset": re.compile(
        r"(?:there (?:is|are) )?no (?:real |integer |such )?(?:solutions?|roots?)(?: exists?)?|none|(?:the )?empty set"
    ),
    r"\mathbb{R}": re.compile(
        r"(?:all|any) (?:real numbers?|reals?|real [a-z])|(?:the )?(?:set of )?(?:all )?real numbers|(?:the )?reals"
    ),
    r"\mathbb{Z}": re.compile(r"(?:all|any) integers?|(?:the )?(?:set of )?(?:all )?integers"),
}
_POSITIVE = re.compile(r"\\mathbb\{R\}(?:\^\{?\+\}?|_\{?(?:\+|>0)\}?)|\\text\{(?:all )?positive real(?:s| numbers)\}")

_ALIGNED = re.compile(
    r"\\begin\{(aligned|align|alignedat|gathered|gather|split|equation|cases)(\*?)\}(.*)\\end\{\1\2\}", re.DOTALL
)
_ARRAY = re.compile(
    r"[(\[]? ?\\begin\{(?:array\}\{[^{}]*|smallmatrix|[pbB]?matrix)\}(.*)"
    r"\\end\{(?:array|smallmatrix|[pbB]?matrix)\} ?[)\]]?",
    re.DOTALL,
)
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?")
_EQUATION = re.compile(r"[^<>=&]*[^<>=&\s][^<>=&]*=[^<>=]+")


def canonical(text: str) -> str:
    """The common spelling of ``text``; linear in its length for the lengths that the guards let through."""
    text = _bare(text)
    if text.isdigit():
        return text
    for pattern, replacement in TABLE:
        text = pattern.sub(replacement, text)
    if "\\begin" in text:
        text = _laid_out(text.strip())
    text = respell_functions(text)
    if "\\" in text:
        text = _FRACTION.sub(lambda m: rf"\frac{{{m[1] or m[2] or ''}}}{{{m[3] or m[4] or ''}}}", text)
        text = _brace_roots(text)
    if "]" in text or "[" in text:
        text = _REVERSED.sub(_turned, text)
    text = _PLACE.sub(r"\1 ", text)
    text = _AND_A_HALF.sub(lambda m: rf"\frac{{1}}{{{_PARTS[m[1]]}}}", text)
    text = _conjoin(re.sub(" +", " ", text))
    text = _LOOSE_SPACE.sub("", text).strip()
    text = re.sub(r", *, *", ", ", text)
    return _phrase(_bare(text))


def _laid_out(text: str) -> str:
    """The text of an aligned block as one line, and a matrix in one spelling of its environment."""
    aligned = _ALIGNED.fullmatch(text)
    if aligned:
        whole = _ROW.split(aligned[3])
        rows = [row.replace("&", "").strip() for row in whole if row.strip(" &")]
        if aligned[1] == "cases" and not all(_EQUATION.fullmatch(row.strip(" ,;")) for row in whole if row.strip()):
            return text  # a function by cases is no list of answers
        return _joined(rows)
    matrix = _ARRAY.fullmatch(text)
    if matrix and "\\begin" not in matrix[1]:
        return rf"\begin{{pmatrix}}{matrix[1].strip()}\end{{pmatrix}}"
    return text


def _joined(rows: list[str]) -> str:
    """A row that begins with a sign of relation goes on with the one above; other rows are further statements."""
    line = ""
    for row in rows:
        row = row.rstrip(",;")
        line += row if not line or row.startswith(("=", "<", ">", "\\le", "\\ge")) else f", {row}"
    return line


def _bare(text: str) -> str:
    """Without what stands around a formula, such as ``$7.$.``"""
    stripped = _unwrap(_strip_stop(text))
    while stripped != text:
        text, stripped = stripped, _unwrap(_strip_stop(stripped))
    return text


def _conjoin(text: str) -> str:
    """The words "or" and "and" between answers as a comma, between conditions (x < 1 or x > 2) as a sign of logic."""
    if "or" not in text and "and" not in text:
        return text
    logic = _INEQUALITY.search(text) is not None

    def sign(match: re.Match[str]) -> str:
        word = next(group for group in match.groups() if group)
        if word in ("lor", "land") and not logic and not re.search(r"\d", text):
            return match[0]  # of two statements
        return ("\\lor " if word in ("or", "lor") else "\\land ") if logic else ", "

    return _CONJUNCTION.sub(sign, text)


def _phrase(text: str) -> str:
    """A set that is told in words, as its sign."""
    if text[-1:].isalpha() or text.endswith("}"):
        told = _TEXT.sub(r"\1", text).strip().casefold()
        for sign, pattern in _SETS.items():
            if pattern.fullmatch(told):
                return sign
    return r"(0,\infty)" if _POSITIVE.fullmatch(text) else text


def _brace_roots(text: str) -> str:
    r"""``\sqrt16``, ``\sqrt(x+1)``, ``\sqrt x`` with braces: the sign takes the whole number, bracket or letter.

    TeX itself would take one digit, but nobody who writes √16 means √1·6.
    """
    for match in reversed(list(_ROOT.finditer(text))):
        start = match.end()
        head, index = text[: match.start()], match[1] or ""
        if text.startswith("(", start):
            end = closing(text, start)
            if end > 0:
                text = rf"{head}\sqrt{index}{{{text[start + 1 : end]}}}{text[end + 1 :]}"
        else:
            radicand = _RADICAND.match(text, start)
            if radicand:
                text = rf"{head}\sqrt{index}{{{radicand[0]}}}{text[radicand.end() :]}"
    return text


def _turned(match: re.Match[str]) -> str:
    """``]0,1[`` as (0,1)."""
    return ("(" if match[1] == "]" else "[") + match[2] + (")" if match[3] == "[" else "]")


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
            bare = inside.replace("\\$", "")  # an escaped dollar is money
            if len(text) > len(left + right) and text.startswith(left) and text.endswith(right) and left not in bare:
                text, changed = inside.strip(), True
        if text.startswith("{") and text.endswith("}") and closes_at_end(text):
            text, changed = text[1:-1].strip(), True
    return text


def closing(text: str, start: int) -> int:
    """Where the bracket at ``start`` is closed, -1 if it is not."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in "({[") - (text[index] in ")}]")
        if depth == 0:
            return index
    return -1


def closes_at_end(text: str) -> bool:
    """Whether the bracket that opens ``text`` is closed by its last character."""
    return 0 < closing(text, 0) == len(text) - 1


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
