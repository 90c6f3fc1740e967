"""Saved trajectories graded again: do the stored verdicts still hold, and what would bare math-verify have said?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from math import isnan

from backtrack_mrt.graders.base import NOTHING, Grader
from backtrack_mrt.graders.math import MATH, Math
from backtrack_mrt.grading import Grade, Limits, Verdict
from backtrack_mrt.grading.pool import WorkerPool, comparing
from backtrack_mrt.grading.question import Ask
from backtrack_mrt.rollouts.episode import graded
from backtrack_mrt.types import Problem, Scored, Trajectory, Turn

Key = tuple[Problem, str]  # and an answer to it


@dataclass(frozen=True)
class Change:
    """A stored word that does not hold: what (the final verdict, the outcome, or a turn's grade), as it is stored and
    as it is now."""

    trajectory: Trajectory
    what: str
    stored: object
    now: object


@dataclass(frozen=True)
class Disagreement:
    """A pair on which the grader and bare math-verify differ."""

    gold: str
    answer: str
    ours: Verdict
    bare: Verdict


@dataclass
class Audit:
    """What was found. pairs: distinct answers to problems. agreement: the grader's verdict, bare math-verify's → pairs;
    empty for other graders than mathematics."""

    trajectories: int = 0
    pairs: int = 0
    changes: list[Change] = field(default_factory=list)
    agreement: Counter[tuple[Verdict, Verdict]] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)


def audit(scored: Sequence[Scored], workers: int = 2, limits: Limits | None = None, grader: Grader = MATH) -> Audit:
    """Grade every answer of the trajectories anew; for mathematics once more with bare math-verify, each in killable
    processes."""
    trajectories = [member.trajectory for member in scored]
    keys = list(dict.fromkeys(key for trajectory in trajectories for key in _asked(trajectory)))
    with grader.opened() as paying:
        counting = paying.counting()
        several = (counting,) if counting is paying else (counting, paying)
        rules = [dict(zip(keys, each.grade_many(keys), strict=True)) for each in several]
    found = Audit(len(trajectories), len(keys))
    for trajectory in trajectories:
        found.changes += sorted((_changes(trajectory, grades) for grades in rules), key=len)[0]
    if isinstance(grader, Math):
        for (problem, answer), bare in zip(keys, _bare(keys, workers, limits or Limits()), strict=True):
            ours = rules[0][problem, answer].verdict
            found.agreement[ours, bare] += 1
            if (ours is Verdict.RIGHT) != (bare is Verdict.RIGHT):
                found.disagreements.append(Disagreement(problem.answer, answer, ours, bare))
    return found


def _asked(trajectory: Trajectory) -> Iterable[Key]:
    given = (*(turn.answer for turn in trajectory.turns), trajectory.answer)
    return ((trajectory.problem, answer) for answer in given if answer is not None)


def _changes(trajectory: Trajectory, grades: Mapping[Key, Grade]) -> list[Change]:
    """Under one of the grader's rules, training's or evaluation's: the one that fits is the one by which the trajectory
    was graded. Words that were not stored (of trajectories that nobody has graded) do not change."""
    problem = trajectory.problem
    now = graded(trajectory, lambda answer: NOTHING if answer is None else grades[problem, answer])
    words: list[tuple[str, object, object]] = [("verdict", trajectory.verdict, now.verdict)]
    if not isnan(trajectory.outcome):
        words.append(("outcome", trajectory.outcome, now.outcome))
    pairs = enumerate(zip(trajectory.turns, now.turns, strict=True), 1)
    words += [(f"turn {j}", _told(before), _told(after)) for j, (before, after) in pairs]
    return [Change(trajectory, what, a, b) for what, a, b in words if a is not None and a != b]


def _told(turn: Turn) -> object:
    """Right or not, or what a partial answer is worth."""
    return turn.right if turn.reward in (None, 0, 1) else turn.reward


def _bare(keys: Sequence[Key], workers: int, limits: Limits) -> list[Verdict]:
    with closing(WorkerPool(workers, comparing(limits, "bare"))) as pool, ThreadPoolExecutor(workers) as threads:
        asked = [Ask(((problem.answer, answer),)).request(problem.rel_tol) for problem, answer in keys]
        return [reply.verdict for reply in threads.map(pool.ask, asked)]
