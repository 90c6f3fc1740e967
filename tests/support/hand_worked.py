"""Turns and trajectories small enough to be counted by hand."""

from __future__ import annotations

from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.types import Completion, Finish, Parsed, Problem, StopReason, Trajectory, Turn, TurnSpec


def turn(phase: BacktrackPhase, tokens: int, parsed: Parsed | None, violation: str | None = None) -> Turn:
    """A turn of a problem whose gold answer is 2."""
    completion = Completion((7,) * tokens, (-0.5,) * tokens, Finish.STOP)
    right = None if parsed is None or parsed.answer is None else parsed.answer == "2"
    return Turn(TurnSpec(phase, 64), "", parsed, (3, 4), completion, violation, right)


ATTEMPT = turn(BacktrackPhase.ATTEMPT, 10, Parsed(answer="1", steps=("a", "b", "c")))
ERROR_2 = turn(BacktrackPhase.DETECT, 4, Parsed(verdict=False, step=2))
TO_1 = turn(BacktrackPhase.BACKTRACK, 2, Parsed(step=1))
REVISE = turn(BacktrackPhase.REVISE, 6, Parsed(answer="2", steps=("b'", "c'")))
NO_ERROR = turn(BacktrackPhase.DETECT, 3, Parsed(verdict=True))
CORRECTED = Trajectory(
    Problem("p", "q", "2"),
    (1, 2),
    (ATTEMPT, ERROR_2, TO_1, REVISE, NO_ERROR),
    StopReason.FINISHED,
    answer="2",
    outcome=1.0,
    verdict="right",
)
