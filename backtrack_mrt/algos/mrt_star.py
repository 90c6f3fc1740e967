"""MRT by self-training: STaR on the trajectories that made the most progress (Qu et al. 2503.07572, §5)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.types import FloatArray, Group


class MrtStar(SelfTraining):
    """A_{i,j} = 1 for the `keep` right trajectories of a problem with the largest progress per turn, else 0.

    Summed over a trajectory progress telescopes to V_E − V_0, which is about the same for all that are right; per turn
    it tells those that got there directly from those that wandered. Trajectories of equal progress keep their order.
    """

    summary: ClassVar[str] = "STaR on the right trajectories with the most progress (MRT)"
    needs_values: ClassVar[bool] = True
    keep: int = Field(2, gt=0, description="trajectories kept per problem")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        right = [i for i, m in enumerate(group.members) if m.trajectory.outcome == 1.0]
        ranked = sorted(right, key=lambda i: -float(group.members[i].progress.mean()))
        kept = set(ranked[: self.keep])
        return [np.full(len(m.trajectory.turns), float(i in kept)) for i, m in enumerate(group.members)]
