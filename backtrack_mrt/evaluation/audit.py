"""Saved trajectories graded again: do the stored verdicts still hold, and what would bare math-verify have said?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from math import isnan

from backtrack_mrt.grading import Forms, Grader, Limits, Verdict, is_evaluated
from backtrack_mrt.grading.pool import WorkerPool
from backtrack_mrt.grading.question import Ask
from backtrack_mrt.rollouts.episode import graded
from backtrack_mrt.types import Scored, Trajectory

Key = tuple[str, str, float | None]  # gold, answer, tolerance


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
    """What was found. pairs: distinct answers to golds. agreement: the grader's verdict, bare math-verify's → pairs."""

    trajectories: int = 0
    pairs: int = 0
    changes: list[Change] = field(default_factory=list)
    agreement: Counter[tuple[Verdict, Verdict]] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)


def audit(scored: Sequence[Scored], workers: int = 2, limits: Limits | None = None) -> Audit:
    """Grade every answer of the trajectories anew, and once more with bare math-verify, each in killable processes."""
    trajectories = [member.trajectory for member in scored]
    keys = list(dict.fromkeys(key for trajectory in trajectories for key in _asked(trajectory)))
    limits = limits or Limits()
    with Grader(workers, limits=limits) as grader:
        verdicts = dict(zip(keys, grader.grade_many([k[:2] for k in keys], rel_tol=[k[2] for k in keys]), strict=True))
    found = Audit(len(trajectories), len(keys))
    for trajectory in trajectories:
        found.changes += _changes(trajectory, verdicts)
    for key, bare in zip(keys, _bare(keys, workers, limits), strict=True):
        ours = verdicts[key]
        found.agreement[ours, bare] += 1
        if (ours is Verdict.RIGHT) != (bare is Verdict.RIGHT):
            found.disagreements.append(Disagreement(key[0], key[1], ours, bare))
    return found


def _asked(trajectory: Trajectory) -> Iterable[Key]:
    given = [turn.parsed.answer for turn in trajectory.turns if turn.parsed is not None]
    problem = trajectory.problem
    return ((problem.answer, a, problem.rel_tol) for a in (*given, trajectory.answer) if a is not None)


def _changes(trajectory: Trajectory, verdicts: dict[Key, Verdict]) -> list[Change]:
    """Under the rule for unevaluated answers (`Grader.forms`) by which the trajectory was graded: the one that fits."""
    rules: tuple[Forms, ...] = ("equivalent", "numeral")
    return min((_changes_under(forms, trajectory, verdicts) for forms in rules), key=len)


def _changes_under(forms: Forms, trajectory: Trajectory, verdicts: dict[Key, Verdict]) -> list[Change]:
    """Words that were not stored (of trajectories that nobody has graded) do not change."""
    problem = trajectory.problem

    def verdict_of(answer: str | None) -> Verdict:
        if answer is None:
            return Verdict.UNPARSABLE
        verdict = verdicts[problem.answer, answer, problem.rel_tol]
        undone = verdict is Verdict.RIGHT and forms == "numeral" and not is_evaluated(problem.answer, answer)
        return Verdict.UNEVALUATED if undone else verdict

    now = graded(trajectory, verdict_of)
    words: list[tuple[str, object, object]] = [("verdict", trajectory.verdict, now.verdict)]
    if not isnan(trajectory.outcome):
        words.append(("outcome", trajectory.outcome, now.outcome))
    pairs = enumerate(zip(trajectory.turns, now.turns, strict=True), 1)
    words += [(f"turn {j}", before.right, after.right) for j, (before, after) in pairs]
    return [Change(trajectory, what, a, b) for what, a, b in words if a is not None and a != b]


def _bare(keys: Sequence[Key], workers: int, limits: Limits) -> list[Verdict]:
    with closing(WorkerPool(workers, limits, compare="bare")) as pool, ThreadPoolExecutor(workers) as threads:
        return list(threads.map(lambda key: pool.ask(Ask(((key[0], key[1]),)), key[2]).verdict, keys))
