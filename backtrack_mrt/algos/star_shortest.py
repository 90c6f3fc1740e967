"""The control of MRT's self-training: STaR on the shortest right trajectories, without any values."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backtrack_mrt.algos.base import SelfTraining, every_turn
from backtrack_mrt.types import FloatArray, Group


class StarShortest(SelfTraining):
    """A_{i,j} = 1 for the `keep` right trajectories of a problem with the fewest sampled tokens, else 0.

    This is about what a ranking by mean progress per turn keeps: (V_E − V_0)/E, where V_E − V_0 is the same for nearly
    all that are right. What `mrt-star` gains over it is due to the values of prefixes. Trajectories of equal length
    keep their order.
    """

    summary: ClassVar[str] = "STaR on the shortest right trajectories (the control of mrt-star)"
    keep: int = Field(2, gt=0, description="trajectories kept per problem")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        right = [i for i, m in enumerate(group.members) if m.trajectory.outcome == 1.0]
        kept = sorted(right, key=lambda i: group.members[i].trajectory.sampled_tokens)[: self.keep]
        return every_turn([i in kept for i in range(len(group.members))], group)
