r"""Is the whole text mathematics? What parses only in part earns nothing.

math-verify reads letters as variables, so "The answer is not \frac34" is a product to it; and a sign that it does not
know ends its reading. Here every token of an answer must be known before the worker is asked.
"""

from __future__ import annotations

import re

from backtrack_mrt.grading.spellings import FUNCTIONS

_SIGNS = """frac sqrt binom times cdot div pm mp infty le ge ne in notin cup cap setminus emptyset mathbb lfloor
rfloor lceil rceil alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi
pi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega vec hat
tilde mathbf mathcal ldots dots cdots prime circ degree ell hbar"""
_COMMANDS = FUNCTIONS | frozenset(_SIGNS.split())
_TOKEN = re.compile(
    r"\\(?P<command>[A-Za-z]+)|\\(?P<sign>[{}%|\\])|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<letters>[A-Za-z]+)"
    r"|(?P<other>[-+*/=<>^_(){}\[\],;|!'& ])"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[pbvB]?matrix\}")
_CHUNK = re.compile(r"\\text\{[^{}]*\}")
# A sign without one of its sides; and what the parser drops: an index of a number, braces between numbers.
_BROKEN = re.compile(
    r"\d\.\d+\.|\d[.!] +\.?\d|\.\.|[+*/=^_<>-]$|^[*/=^_<>!]|[*/^_] ?[*/=^_]|\( ?\)"
    r"|(?:\d\)?|\\frac\{[^{}]*\}\{[^{}]*\}) ?_|(?:^|[^\d_^])\d+ ?\{ ?\d|^\{\d+\} ?\{"
    r"|\\(?:times|cdot|div|pm|mp|cup|cap|setminus|in|le|ge|ne) ?$"
)
# A function without its argument, which the parser passes over.
_NAMED = "|".join(sorted(FUNCTIONS - {"pi", "infty"}))
_IDLE = re.compile(rf"\\(?:{_NAMED})(?![A-Za-z])(?:_\{{\w+\}})? *(?:$|[)}}\]*/,;=<>|])")
_MARKS = ("'", "^T", "^{T}", "\\top")  # a derivative and a transpose are no further names of the gold
MAX_RUN = 3  # letters of a product that are written without a space


def is_mathematics(answer: str, gold: str) -> bool:
    """Whether every token of a canonical answer is known; what the gold itself has is allowed.

    A run of letters is a product only of letters that the gold has, such as the ab in 6ab - 3b.
    """
    text = _ENVIRONMENT.sub("", answer)
    for chunk in set(_CHUNK.findall(text)):
        if chunk in gold:
            text = text.replace(chunk, "x")
    if _BROKEN.search(text) or _IDLE.search(text) or text.count("|") % 2:
        return False
    if any(mark in text and mark not in gold for mark in _MARKS):
        return False
    letters = set(re.sub(r"\\[A-Za-z]+", "", gold)) | {"e", "i"}
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            return False
        end = match.end()
        command, run = match["command"], match["letters"]
        if command and command not in _COMMANDS and f"\\{command}" not in gold:
            return False
        if run and len(run) > 1 and run not in gold and (len(run) > MAX_RUN or not letters.issuperset(run)):
            return False
    return end == len(text)
