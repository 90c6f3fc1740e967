"""GRPO with a reward that is smaller for long right answers (Arora & Zanette 2502.04463)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import Algorithm, length_penalised, outcome_advantages, without_group
from backtrack_mrt.types import FloatArray, Group


class LengthPenalty(Algorithm):
    """A_{i,j} = Â of R·(1 − λ·σ((len − mean_len) / std_len)), mean and deviation over the problem's right trajectories;
    len is the sampled tokens, σ the logistic function."""

    summary: ClassVar[str] = "outcome, less for long right trajectories"
    strength: float = Field(0.2, ge=0, lt=1, description="λ: share of the reward that length can cost")
    scale_outcome: bool = Field(False, description="divide the outcome advantage by the group's standard deviation")

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        return without_group(group_size)

    def turn_weights(self, group: Group) -> list[FloatArray]:
        outcomes_G = np.array([m.trajectory.outcome for m in group.members])
        lengths_G = np.array([float(m.trajectory.sampled_tokens) for m in group.members])
        rewards_G = length_penalised(outcomes_G, lengths_G, self.strength)
        advantages_G = outcome_advantages(rewards_G, self.scale_outcome)
        return [
            np.full(len(m.trajectory.turns), advantage)
            for m, advantage in zip(group.members, advantages_G, strict=True)
        ]
