"""GRPO on the outcome alone: the control of every comparison."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backtrack_mrt.algos.base import Algorithm, every_turn, outcome_advantages
from backtrack_mrt.types import FloatArray, Group


class Grpo(Algorithm):
    """A_{i,j} = Â_i: every turn of a trajectory carries its group-centred outcome (DeepSeekMath 2402.03300).

    Left out: division by the group's standard deviation unless asked for (it over-weights nearly solved problems,
    Dr. GRPO 2503.20783).
    """

    summary: ClassVar[str] = "outcome only (the control)"
    compares: ClassVar[bool] = True
    scale_outcome: bool = Field(False, description="divide the outcome advantage by the group's standard deviation")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        return every_turn(outcome_advantages(self.rewards(group), self.scale_outcome), group)

    def rewards(self, group: Group) -> FloatArray:
        """What a trajectory is paid, shape (G,)."""
        return group.outcomes
