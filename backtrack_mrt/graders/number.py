r"""Numbers within a tolerance: 3.14 for \pi written as 3.14159, 9.81 m/s² for 9.8.

Units and percent signs count as in mathematics; what is no numeral (a root, a sum) is unparsable. A problem's own
tolerance (`rel_tol`) goes before the grader's. The answer stands in the last ``\boxed{}``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

from pydantic import Field

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading import Verdict, check_gold, surface_forms
from backtrack_mrt.grading.exact import Quantity, parse_quantity
from backtrack_mrt.grading.guards import refuse
from backtrack_mrt.grading.judge import compare, plain, plain_gold
from backtrack_mrt.grading.labels import split_label
from backtrack_mrt.grading.spellings import translate
from backtrack_mrt.types import Problem


class Number(Grader):
    """A number within a share of the gold's size, or a distance of it."""

    summary: ClassVar[str] = "numbers within a tolerance"
    listed: ClassVar[bool] = True
    rel_tol: float = Field(0.01, ge=0, lt=1, description="right within this share of the gold's size (0: exactly)")
    abs_tol: float = Field(0.0, ge=0, description="right within this distance of the gold as well")

    def judge(self, problem: Problem, answer: str) -> Verdict:
        gold, given = problem.answer.strip(), translate(answer.strip())
        if refuse(given, gold) is not None:
            return Verdict.UNPARSABLE
        wanted, text = _number(gold), plain(given)
        named = split_label(text)  # x = 9.8
        offered = parse_quantity(named[1] if named else text)
        if wanted is None or offered is None:
            return Verdict.UNPARSABLE
        share = self.rel_tol if problem.rel_tol is None else problem.rel_tol
        if not wanted.value:
            return Verdict.RIGHT if abs(offered.value) <= self.abs_tol else Verdict.WRONG
        widest = max(Fraction(share), Fraction(self.abs_tol) / abs(wanted.value))
        judged = compare(plain_gold(gold), text, float(widest) or None)
        return judged if isinstance(judged, Verdict) else Verdict.UNPARSABLE

    def check_gold(self, gold: str) -> str | None:
        return check_gold(gold) or (None if _number(gold) else f"is no number: {gold}")

    def spellings(self, problem: Problem) -> tuple[str, ...]:
        return surface_forms(problem.answer)


def _number(gold: str) -> Quantity | None:
    return parse_quantity(plain_gold(gold.strip()), gold=True)
