"""Canaries: training problems whose gold is another problem's answer.

They are rolled out and graded like the others and train nothing (`Algorithm.weigh`). A right answer to one is a mistake
of the grader, or a policy that found such a mistake.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.grading import Verdict
from backtrack_mrt.types import Problem, Trajectory

LIMIT = 0.05  # share of right answers above which there is a warning; wrong answers meet a wrong gold now and then
SEEN = 40  # trajectories before the share says anything
_TRIES = 100


def with_canaries(problems: Sequence[Problem], share: float, seed: int, grader: Grader = MATH) -> list[Problem]:
    """The problems, the golds of a `share` of them (rounded up) replaced by ones of others that are not equal. Raises
    UserError where all golds are the same."""
    rng = random.Random(f"canaries/{seed}")
    mixed = list(problems)
    for row in rng.sample(range(len(problems)), math.ceil(share * len(problems))):
        mixed[row] = replace(problems[row], answer=_wrong_gold(problems[row], problems, rng, grader), canary=True)
    return mixed


def _wrong_gold(problem: Problem, others: Sequence[Problem], rng: random.Random, grader: Grader) -> str:
    for other in rng.choices(others, k=_TRIES):
        swapped = replace(problem, answer=other.answer)
        grades = grader.grade_many([(problem, other.answer), (swapped, problem.answer)])
        if all(grade.verdict is Verdict.WRONG for grade in grades):
            return other.answer
    reason = f"no other gold was found that differs from {problem.answer!r}, the one of {problem.id}"
    raise UserError("data.canaries", problem.answer, reason, "Set it to 0, or take problems with different answers.")


@dataclass
class CanaryWatch:
    """Counts the answers to canaries over a run, and warns once if too many are right."""

    seen: int = 0
    right: int = 0
    warned: bool = False

    def see(self, trajectories: Iterable[Trajectory]) -> None:
        """Graded trajectories."""
        outcomes = [trajectory.outcome for trajectory in trajectories if trajectory.problem.canary]
        self.seen += len(outcomes)
        self.right += sum(outcome == 1.0 for outcome in outcomes)
        if self.seen >= SEEN and self.right > LIMIT * self.seen and not self.warned:
            self.warned = True
            warnings.warn(
                f"{self.right} of {self.seen} answers to canaries (problems with a wrong gold) were graded right: the "
                "grader is deceived, or the golds can be guessed. Read these trajectories before trusting the rewards.",
                stacklevel=2,
            )
