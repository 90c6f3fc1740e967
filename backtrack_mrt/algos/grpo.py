"""GRPO on the outcome alone: the control of every comparison."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import Algorithm, outcome_advantages, without_group
from backtrack_mrt.types import FloatArray, Group


class Grpo(Algorithm):
    """A_{i,j} = Â_i: every turn of a trajectory carries its group-centred outcome (DeepSeekMath 2402.03300).

    Left out: division by the group's standard deviation unless asked for (it over-weights nearly solved problems,
    Dr. GRPO 2503.20783).
    """

    summary: ClassVar[str] = "outcome only (the control)"
    scale_outcome: bool = Field(False, description="divide the outcome advantage by the group's standard deviation")

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        return without_group(group_size)

    def turn_weights(self, group: Group) -> list[FloatArray]:
        outcomes_G = np.array([member.trajectory.outcome for member in group.members])
        advantages_G = outcome_advantages(outcomes_G, self.scale_outcome)
        return [
            np.full(len(member.trajectory.turns), advantage)
            for member, advantage in zip(group.members, advantages_G, strict=True)
        ]
