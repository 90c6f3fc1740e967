r"""Environments of LaTeX that only lay out: ``aligned`` rows, ``array`` matrices, ``cases`` of several equations."""

from __future__ import annotations

import re

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


def lay_out(text: str) -> str:
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
