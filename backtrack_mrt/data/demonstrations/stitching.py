"""Warm-start data: pieces of a model's own rollouts put together into demonstrations (MRT 2503.07572, fig. 14 and 15;
docs/problems.md). `backtrack_mrt.training.warm_start` finds the pieces.

`backtrack`  a wrong attempt, where it goes wrong, the step to return to, a right continuation from there, and the check
             that finds no error: the wrong attempt carries no loss
`correct`    a right attempt and the check that finds no error, for the same protocol
`rise`       a wrong attempt and any right one after it, for the protocol `retry`
`star`       a right attempt, for the protocol `single`
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.data.demonstrations.files import DemoTurns, Span
from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.types import FloatArray, Group, Parsed, Trajectory

PROTOCOLS = {"backtrack": "backtrack", "correct": "backtrack", "rise": "retry", "star": "single"}  # of each form
RIGHT_CHECK = "No error"


@dataclass(frozen=True, slots=True)
class Pieces:
    """What one problem yields, as texts. target: the step to return to, in the wrong attempt. check: names the step
    after it. revision: a right continuation. closing, right_check: find no error in the revised and in the right
    attempt. None: not found."""

    wrong: str | None = None
    target: int = 0
    check: str | None = None
    revision: str | None = None
    closing: str = RIGHT_CHECK
    right: str | None = None
    right_check: str = RIGHT_CHECK


def demonstrations(pieces: Pieces) -> dict[str, DemoTurns]:
    """The demonstrations that can be made of the pieces, by form. `backtrack`, `rise` and `star` are made of the same
    problems, so that their losses can be compared."""
    made: dict[str, DemoTurns] = {}
    if pieces.right is not None:
        made["correct"] = _turns((BacktrackPhase.ATTEMPT, pieces.right), (BacktrackPhase.DETECT, pieces.right_check))
    if pieces.wrong is None or pieces.right is None or pieces.check is None or pieces.revision is None:
        return made
    wrong = (BacktrackPhase.ATTEMPT, (Span(pieces.wrong, learn=False),))
    made["backtrack"] = [
        wrong,
        *_turns(
            (BacktrackPhase.DETECT, pieces.check),
            (BacktrackPhase.BACKTRACK, backtrack_text(pieces.target)),
            (BacktrackPhase.REVISE, pieces.revision),
            (BacktrackPhase.DETECT, pieces.closing),
        ),
    ]
    made["rise"] = [wrong, *_turns(("retry", pieces.right))]
    made["star"] = _turns((BacktrackPhase.ATTEMPT, pieces.right))
    return made


def chosen(group: Group, rng: random.Random) -> tuple[Trajectory | None, Trajectory | None]:
    """A wrong and a right attempt of the group; of the pairs one that shares the most steps."""
    wrong, right = attempts(group, False), attempts(group, True)
    if not wrong or not right:
        return (rng.choice(wrong) if wrong else None), (rng.choice(right) if right else None)
    pairs = [(shared_steps(one, other), one, other) for one in wrong for other in right]
    most = max(shared for shared, _, _ in pairs)
    _, one, other = rng.choice([pair for pair in pairs if pair[0] == most])
    return one, other


def best_target(values: FloatArray) -> int:
    """The step to return to: the one after which success is likeliest, V_0 … V_{S−1} given; the latest of equals, which
    keeps the most."""
    return int(len(values) - 1 - np.argmax(values[::-1]))


def error_text(target: int) -> str:
    """The plain check whose error is in the step after `target`."""
    return f"Error in step {target + 1}"


def backtrack_text(target: int) -> str:
    """The backtrack turn."""
    return f"Backtrack to step {target}"


def attempts(group: Group, right: bool) -> list[Trajectory]:
    """The members whose attempt was accepted and is right, or wrong."""
    trajectories = [member.trajectory for member in group.members]
    return [t for t in trajectories if t.turns and t.turns[0].parsed is not None and t.turns[0].right is right]


def steps_of(attempt: Trajectory) -> Sequence[str]:
    """The steps of an accepted attempt."""
    parsed = attempt.turns[0].parsed
    assert isinstance(parsed, Parsed)
    return parsed.steps


def shared_steps(one: Trajectory, other: Trajectory) -> int:
    """Leading steps of the attempts with the same text."""
    pairs = zip(steps_of(one), steps_of(other), strict=False)
    return next(
        (k for k, (ours, theirs) in enumerate(pairs) if ours != theirs), min(map(len, map(steps_of, (one, other))))
    )


def _turns(*turns: tuple[str, str]) -> DemoTurns:
    return [(phase, (Span(text),)) for phase, text in turns]
