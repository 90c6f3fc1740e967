"""Groups of trajectories with one answer per turn, small enough to be weighed by hand."""

from __future__ import annotations

import numpy as np

from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.types import Completion, Finish, Group, Parsed, Problem, Scored, Trajectory, Turn, TurnSpec

PROBLEM = Problem("p", "q", "1")


def member(*right: bool, tokens: int = 4, given: int = 0, values: list[float] | None = None, start: int = 0) -> Scored:
    """A trajectory of one answer per turn; the tokens of a turn tell where it began and whether it is right."""
    turns = tuple(
        Turn(
            TurnSpec("attempt", 64),
            "",
            Parsed(answer=str(int(r))),
            (),
            Completion((start + 2 * j + r,) * tokens, (0.0,) * tokens, Finish.STOP),
            reward=float(r),
        )
        for j, r in enumerate(right)
    )
    trajectory = Trajectory(PROBLEM, (9,), turns, answer="1", outcome=float(right[-1]), given=given)
    return Scored(trajectory, None if values is None else np.array(values))


def group(*members: Scored) -> Group:
    return Group(PROBLEM, members)


def weights(algorithm: Algorithm, *members: Scored) -> list[list[float]]:
    """What the algorithm makes of a group of these members."""
    return [row.tolist() for row in algorithm.turn_weights(group(*members))]
