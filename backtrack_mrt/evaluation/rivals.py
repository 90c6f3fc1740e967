"""Trajectories that are there already: read, graded where they are not, held against those of another policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.metrics.budgets import majority_at_tokens, token_efficiency
from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.evaluation.metrics.summary import Limits, Point, budget_grid, points_by_answer
from backtrack_mrt.grading import Grader
from backtrack_mrt.rollouts.rollout import grade
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.types import Scored, Trajectory


@dataclass(frozen=True)
class Rivalry:
    """A policy against another one: its own accuracy and tokens at the trained limit, `token_efficiency` by accuracy
    (tokens that the other needs / tokens that it needs), and maj@k of the other at as many tokens."""

    own: Point
    token_efficiency: dict[str, Estimate]
    majority_at_tokens: Estimate


def rivalry(ours: Sequence[Scored], theirs: Sequence[Scored], limits: Limits) -> Rivalry:
    """Graded trajectories of two policies; both are cut at `limits`."""
    own = points_by_answer(ours, limits.answers)[-1]
    efficiency = token_efficiency(ours, theirs, budget_grid(limits.most_tokens))
    return Rivalry(own, efficiency, majority_at_tokens(theirs, limits.answers, own.tokens.mean))


def read_graded(path: Path) -> list[Scored]:
    """The trajectories of a file, at least one, every answer graded. Grades that the file has are kept. Raises
    UserError."""
    scored = read_trajectories(path)
    if not scored:
        raise UserError("trajectories", str(path), "the file is empty", "Give a file with one trajectory per line.")
    missing = [i for i, s in enumerate(scored) if _ungraded(s.trajectory)]
    with Grader() as grader:
        found = grade([scored[i].trajectory for i in missing], grader)
    for i, trajectory in zip(missing, found, strict=True):
        before = scored[i].trajectory
        if not isnan(before.outcome):
            trajectory = replace(trajectory, outcome=before.outcome, verdict=before.verdict)
        scored[i] = replace(scored[i], trajectory=trajectory)
    return scored


def _ungraded(trajectory: Trajectory) -> bool:
    given = [turn for turn in trajectory.turns if turn.parsed is not None and turn.parsed.answer is not None]
    return isnan(trajectory.outcome) or any(turn.right is None for turn in given)
