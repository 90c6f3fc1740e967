"""What the turns of one trajectory say: answers, tokens, outcomes at lower limits, returns to a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from backtrack_mrt.protocol import standing_steps
from backtrack_mrt.types import FloatArray, Problem, Trajectory

FirstWrongStep = Callable[[Problem, Sequence[str]], int | None]


def tokens_at_turns(trajectory: Trajectory) -> FloatArray:
    """Sampled tokens after 0 … E turns, shape (E+1,)."""
    lengths = (len(turn.completion.token_ids) for turn in trajectory.turns)
    return np.array(list(accumulate(lengths, initial=0)), dtype=np.float64)


def answers(trajectory: Trajectory) -> list[tuple[int, str]]:
    """The answers given, each with the index of its turn."""
    return [(j, turn.answer) for j, turn in enumerate(trajectory.turns) if turn.answer is not None]


def outcomes_by_answer(trajectory: Trajectory, most: int) -> FloatArray:
    """Outcome if the trajectory had been stopped after its k-th answer, k = 1 … `most`, shape (most,).

    The policy does not know the limit, so cutting a long trajectory is the same as sampling with a lower limit. After
    its last answer a trajectory keeps its final outcome.
    """
    outcomes = np.full(most, trajectory.outcome)
    for k, (j, _) in enumerate(answers(trajectory)[:most]):
        if j < len(trajectory.turns) - 1:
            outcomes[k] = trajectory.turns[j].reward or 0.0
    return outcomes


def answer_after(trajectory: Trajectory, most: int) -> str | None:
    """The answer that stands if the trajectory is stopped after its answer number `most`."""
    given = answers(trajectory)[:most]
    if len(given) == most and given[-1][0] < len(trajectory.turns) - 1:
        return given[-1][1]
    return trajectory.answer


def tokens_by_answer(trajectory: Trajectory, most: int) -> FloatArray:
    """Sampled tokens if the trajectory had been stopped after its k-th answer, shape (most,)."""
    spent = tokens_at_turns(trajectory)
    tokens = np.full(most, spent[-1])
    for k, (j, _) in enumerate(answers(trajectory)[:most]):
        tokens[k] = spent[j + 1]
    return tokens


def returns(trajectory: Trajectory, first_wrong_step: FirstWrongStep) -> list[str]:
    """Each turn that goes back to a step as "exact" (to just before the first wrong step), "early", "late", or
    "needless" (nothing was wrong). Turns whose steps cannot be checked are left out."""
    kinds = []
    for j, turn in enumerate(trajectory.turns):
        if turn.target is None:
            continue
        steps = standing_steps(trajectory.turns[:j])
        wrong = first_wrong_step(trajectory.problem, steps)
        if wrong is None:
            continue
        distance = turn.target - (wrong - 1)
        kinds.append(
            "needless" if wrong > len(steps) else "exact" if distance == 0 else "early" if distance < 0 else "late"
        )
    return kinds
