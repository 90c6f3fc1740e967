r"""Mathematics, the default: equal to the gold, by exact arithmetic, rules, then a computer algebra system.

The answer stands in the last ``\boxed{}``. Words are words: ``cat`` is not ``act``. Without a tolerance of the problem
(`rel_tol`) numbers are right only if exactly equal. See `backtrack_mrt.grading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, PrivateAttr

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading import Forms, MathGrader, Verdict, check_gold, is_canonical, surface_forms
from backtrack_mrt.types import Problem


class Math(Grader):
    """Mathematics: whatever equals the gold."""

    summary: ClassVar[str] = "mathematics: equal to the gold"
    listed: ClassVar[bool] = True
    forms: Forms = Field(
        "numeral",
        description="training, where the gold is a numeral: numerals only (not 16-14 for 2), or whatever equals it",
    )
    workers: int = Field(2, gt=0, le=64, description="processes for what needs computer algebra")
    _started: MathGrader | None = PrivateAttr(None)

    @property
    def mathematics(self) -> MathGrader:
        """What compares, with its memory and its processes."""
        if self._started is None:
            self._started = MathGrader(self.workers)
        return self._started

    def judge(self, problem: Problem, answer: str) -> Verdict:
        return self.judge_many([(problem, answer)])[0]

    def judge_many(self, asked: Sequence[tuple[Problem, str]]) -> list[Verdict]:  # type: ignore[override]
        pairs = [(problem.answer, answer) for problem, answer in asked]
        return self.mathematics.grade_many(pairs, rel_tol=[p.rel_tol for p, _ in asked], forms=self.forms)

    def check_gold(self, gold: str) -> str | None:
        return check_gold(gold)

    def spellings(self, problem: Problem) -> tuple[str, ...]:
        return surface_forms(problem.answer)

    def is_canonical(self, problem: Problem) -> bool:
        return problem.rel_tol is None and is_canonical(problem.answer)

    def evaluating(self) -> Grader:
        assert self.mathematics  # both share it
        return self.model_copy(update={"forms": "equivalent"})

    def close(self) -> None:
        if self._started is not None:
            self._started.close()


MATH = Math()  # where nobody names another grader
