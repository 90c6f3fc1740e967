r"""The comparison inside the worker process: math-verify, with its measured false accepts closed.

Runs without the package around it (see worker.py), so it imports nothing of it.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

import math_verify.grader
import math_verify.parser
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, E, Eq, Expr, Float, I, MatrixBase, Rational, Symbol, simplify  # type: ignore[import-untyped]

# Units are compared before the text comes here, and math-verify's list of units holds single letters (t, h, o, c).
_LATEX = LatexExtractionConfig(
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    ),
)
_DIGITS = 30  # precision of numeric comparisons
# What the reader of LaTeX takes for something else: 3(4) for 3 + 4, and A' and A^T for A.
_BESIDE = re.compile(r"(?<=\d) ?(?=\()|(?<=\)) ?(?=[\d(]|\\frac)")
_MARKED = re.compile(r"(?<=[A-Za-z}])('+)|\^(?:\{(T|\\top)\}|(T|\\top)(?![A-Za-z]))")
_UNKNOWN_DIVISOR = re.compile(r"\\(?:gcd|lcm)(?![A-Za-z])[^()]*\([^()]*[A-Za-z]")
_OF_AN_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")

# No formula raises the last two: a library that is loaded late finds no room.
SHORT_OF_MEMORY = (MemoryError, ImportError, OSError)


def grade(request: dict[str, Any]) -> str:
    """The verdict on one request, see worker.py. Errors other than SHORT_OF_MEMORY end as "unparsable" or "wrong"."""
    rel_tol = request.get("rel_tol")
    if "match" in request:
        golds, answers = request["match"]
        return _match(golds, answers, rel_tol)
    for gold, answer in request["pairs"]:
        verdict = _compare(gold, answer, rel_tol)
        if verdict != "right":
            return verdict
    for gold, value, margin in request.get("near", ()):
        if not _near(gold, Rational(value), Rational(margin)):
            return "wrong"
    return "right"


def warm_up() -> None:
    """Load what math-verify loads late, so that every forked child finds it in memory."""
    _compare(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", None)
    _compare("x^2+2x+1", "(x+1)^2", None)


def _match(golds: list[str], answers: list[str], rel_tol: float | None) -> str:
    """Whether the answers are the golds in any order. Equality is transitive, so taking the first match is enough."""
    left = list(answers)
    for gold in golds:
        for index, answer in enumerate(left):
            if _compare(gold, answer, rel_tol) == "right":
                del left[index]
                break
        else:
            return "wrong"
    return "wrong" if left else "right"


def _compare(gold: str, answer: str, rel_tol: float | None) -> str:
    parsed_gold, parsed_answer = _parse(gold), _parse(answer)
    if parsed_answer is None:
        return "unparsable"
    if parsed_gold is None:
        return "wrong"
    try:
        if rel_tol is not None and _close(parsed_gold, parsed_answer, rel_tol):
            return "right"
        if verify(parsed_gold, parsed_answer, timeout_seconds=None):
            return "right"
        return "right" if _equal_complex(parsed_gold, parsed_answer) else "wrong"
    except SHORT_OF_MEMORY:
        raise
    except Exception:
        return "wrong"


@lru_cache(maxsize=256)  # the gold of a group comes again and again
def _parse(text: str) -> Any:
    """What math-verify reads in ``text``, floats made exact, or None. Boxed, because raw text is often misread."""
    if _UNKNOWN_DIVISOR.search(text):
        return None  # of polynomials it would be 1
    text = _MARKED.sub(lambda mark: f"_{{{'p' * len(mark[1]) if mark[1] else 'T'}}}", _BESIDE.sub(r"\\cdot ", text))
    try:
        found = parse(rf"\boxed{{{text}}}", [_LATEX], fallback_mode="no_fallback", parsing_timeout=None)
        return _exact(found[0]) if found else None
    except SHORT_OF_MEMORY:
        raise
    except Exception:
        return None


def _read(latex: str) -> Any:
    r"""All of a formula: A and a are two letters, and the sine of 30^\circ is that of an angle.

    Stands in for math-verify's reading, which falls back to the last equation of what it cannot read.
    """
    return latex2sympy(
        latex,
        is_real=not math_verify.parser.should_treat_as_complex(latex),
        convert_degrees=_OF_AN_ANGLE.search(latex) is not None,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )


def _exact(expression: Any) -> Any:
    """Decimals as rationals: math-verify rounds floats to six places, so 0.0 would equal every tiny number."""
    if isinstance(expression, Expr | Eq | MatrixBase):
        floats = expression.atoms(Float)
        if floats:
            return expression.xreplace({number: Rational(str(number)) for number in floats})
    return expression


def _close(gold: Any, answer: Any, rel_tol: float) -> bool:
    """Real numbers within ``rel_tol`` of the gold's size."""
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.free_symbols or answer.free_symbols:
        return False
    reference, value = gold.evalf(_DIGITS), answer.evalf(_DIGITS)
    if not (reference.is_real and value.is_real and reference.is_finite and value.is_finite):
        return False
    return bool(abs(value - reference) <= rel_tol * abs(reference))


def _near(gold: str, value: Any, margin: Any) -> bool:
    """Whether a decimal is the gold's value, off by less than the margin."""
    parsed = _parse(gold)
    if not isinstance(parsed, Expr) or parsed.free_symbols - {Symbol("e"), Symbol("i")}:
        return False
    reference = parsed.evalf(_DIGITS)
    return bool(reference.is_real and reference.is_finite and abs(reference - value) < margin)


def _equal_complex(gold: Any, answer: Any) -> bool:
    r"""Numbers written with an i that math-verify took for a variable: ``e^{i\pi}`` is -1."""
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
        return False
    names = {symbol.name for symbol in gold.free_symbols | answer.free_symbols}
    if "i" not in names or not names <= {"i", "e"}:
        return False
    values = {symbol: I if symbol.name == "i" else E for symbol in gold.free_symbols | answer.free_symbols}
    return bool(simplify(gold.subs(values) - answer.subs(values)) == 0)


def _same_equation(gold: Any, answer: Any, *_: int) -> bool:
    """Equations are the same when one is a number times the other.

    Stands in for math-verify's comparison of the solutions, which holds of any two equations without real ones (the
    empty lists are equal) and which hangs on hard ones.
    """
    if not (isinstance(gold, Eq) and isinstance(answer, Eq)):
        return False
    quotient = (gold.lhs - gold.rhs) / (answer.lhs - answer.rhs)
    if _differ(_at(quotient, 3), _at(quotient, 7)):
        return False
    ratio = simplify(quotient)
    return bool(ratio.is_number and ratio.is_finite and ratio != 0)


def _numerically_equal(first: Any, second: Any, *_: int) -> bool:
    """Exact numbers only: math-verify's version rounds, and drops what is small beside the rest."""
    if isinstance(first, MatrixBase) and isinstance(second, MatrixBase):
        return first.shape == second.shape and all(
            _numerically_equal(one, other) for one, other in zip(first.flat(), second.flat(), strict=True)
        )
    if not (isinstance(first, Basic) and isinstance(second, Basic)):
        return False
    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return bool(first == second)
    first, second = first.doit(), second.doit()
    if first == second:
        return True
    # A cheap refutation of most wrong answers, which would take the symbolic comparison longest.
    if all(_differ(_at(first, start), _at(second, start)) for start in (3, 7)):
        raise _Different
    return False


def _at(expression: Any, start: int) -> Any:
    """The expression with its variables at some positive values (the same ones for each expression of a pair)."""
    values = {symbol: Rational(start * 97 + sum(map(ord, symbol.name)), 211) for symbol in expression.free_symbols}
    return expression.evalf(_DIGITS, subs=values)


def _differ(first: Any, second: Any) -> bool:
    """Whether two values are plainly different numbers; what has no finite value refutes nothing."""
    difference = first - second
    if not (first.is_number and second.is_number and difference.is_finite):
        return False
    return bool(abs(difference).evalf() > (abs(first) + abs(second)).evalf() * Rational(1, 10**9))


class _Different(Exception):
    """Raised through math-verify (which reads any error as "not equal") to skip its costly symbolic attempt."""


def _same_symbol(gold: Any, answer: Any) -> bool:
    """A variable equals what simplifies to it; math-verify compares only the spelling, and that without its case."""
    return str(gold) == str(answer) or (
        isinstance(gold, Expr) and isinstance(answer, Expr) and bool(simplify(gold - answer) == 0)
    )


math_verify.parser.parse_latex_cached = _read
math_verify.grader.sympy_compare_symbols = _same_symbol
math_verify.grader.sympy_solve_and_compare = _same_equation
math_verify.grader.sympy_numeric_eq = _numerically_equal
logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we keep the time ourselves
