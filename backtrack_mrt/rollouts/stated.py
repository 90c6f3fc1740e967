"""Values without a meta-prover: what the answers are worth that a trajectory states on its way.

A policy that were to answer now would mostly repeat what it has answered last. So the grade of that answer is an
estimate of V by a single sample, which is there already: no model is asked, and no token is spent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtrack_mrt.types import FloatArray, Problem, StopReason, Trajectory


class StatedAnswers:
    """In the place of a meta-prover, for protocols with answers on the way."""

    tokens = 0

    def reserve(self, problem: Problem) -> int:
        """Nothing is forced, so a trajectory leaves no room for it."""
        return 0

    def values(self, trajectories: Sequence[Trajectory]) -> list[FloatArray]:
        """V_0 … V_E of each graded trajectory, shape (E+1,)."""
        return [stated_values(trajectory) for trajectory in trajectories]


def stated_values(trajectory: Trajectory) -> FloatArray:
    """V_j is the reward of the last answer that was stated before c_j: 0 before the first one, and after a violation
    (as the meta-prover has it). (E+1,)."""
    values = [0.0]
    for turn in trajectory.turns:
        values.append(values[-1] if turn.reward is None else turn.reward)
    if trajectory.stop is StopReason.VIOLATION:
        values[-1] = 0.0
    return np.array(values)
