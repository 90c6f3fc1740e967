"""MRT by reinforcement learning: the outcome plus dense progress (Qu et al. 2503.07572, eq. 2 and §6)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.credit import outcome_advantages, progress_to_go, turn_progress
from backtrack_mrt.types import FloatArray, Group


class MrtRl(Algorithm):
    """A_{i,j} = Â_i + α·p_{i,j}, or with `credit: return_to_go` Â_i + α·(V_E − V_j).

    Progress must reach the gradient per turn: summed over a trajectory it telescopes to V_E − V_0, and group-centred
    that is plain GRPO again. Left out: centring of the progress itself; V_j already is the turn's baseline, and means
    per turn index are biased when the policy chooses when to stop.
    """

    summary: ClassVar[str] = "outcome + α·progress per turn (MRT)"
    needs_values: ClassVar[bool] = True
    alpha: float = Field(1.0, ge=0, description="weight α of the progress; 0 is GRPO")
    credit: Literal["turn", "return_to_go"] = Field("turn", description="a turn's own progress, or all from it on")
    scale_outcome: bool = Field(False, description="divide the outcome advantage by the group's standard deviation")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        outcomes_G = np.array([member.trajectory.outcome for member in group.members])
        advantages_G = outcome_advantages(outcomes_G, self.scale_outcome)
        credit = turn_progress if self.credit == "turn" else progress_to_go
        weights = []
        for member, advantage in zip(group.members, advantages_G, strict=True):
            assert member.values is not None  # needs_values
            weights.append(advantage + self.alpha * credit(member.values))
        return weights
