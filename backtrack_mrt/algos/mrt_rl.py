"""MRT by reinforcement learning: the outcome plus dense progress (Qu et al. 2503.07572, eq. 2 and §6)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import (
    Algorithm,
    Collection,
    Independent,
    TerminateOrContinue,
    outcome_advantages,
    progress_to_go,
    turn_progress,
)
from backtrack_mrt.types import FloatArray, Group, Scored


class MrtRl(Algorithm):
    """A_{i,j} = Â_i + α·p_{i,j}, with `credit: return_to_go` Â_i + α·(V_E − V_j), with `credit: prefix` Â_i.

    Progress must reach the gradient per turn: summed over a trajectory it telescopes to V_E − V_0, and group-centred
    that is plain GRPO again. Left out: centring of the progress itself; V_j already is the turn's baseline, and means
    per turn index are biased when the policy chooses when to stop.

    `prefix` is the paper's own form (fig. 6, 13): the group shares a prefix c_j, half of it terminates there (forced
    answer), half goes on; outcomes centred across both halves are the progress bonus implicitly. One scalar per
    trajectory, α plays no part, and values are only logged.
    """

    summary: ClassVar[str] = "outcome + α·progress per turn (MRT)"
    needs_values: ClassVar[bool] = True
    alpha: float = Field(1.0, ge=0, description="weight α of the progress; 0 is GRPO")
    credit: Literal["turn", "return_to_go", "prefix"] = Field(
        "turn", description="a turn's own progress, all from it on, or terminate/continue groups from a drawn prefix"
    )
    scale_outcome: bool = Field(False, description="divide the outcome advantage by the group's standard deviation")

    @property
    def collection(self) -> Collection:
        return TerminateOrContinue() if self.credit == "prefix" else Independent()

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        if self.credit == "prefix" and group_size % 2:
            return f"credit: prefix needs an even group (half terminates, half goes on), not {group_size}"
        return None

    def turn_weights(self, group: Group) -> list[FloatArray]:
        outcomes_G = np.array([member.trajectory.outcome for member in group.members])
        advantages_G = outcome_advantages(outcomes_G, self.scale_outcome)
        return [a + self._bonus(member) for member, a in zip(group.members, advantages_G, strict=True)]

    def _bonus(self, member: Scored) -> FloatArray:
        """α times what each turn is credited with, shape (E,)."""
        if self.credit == "prefix":
            return np.zeros(len(member.trajectory.turns))
        assert member.values is not None  # needs_values
        credit = turn_progress if self.credit == "turn" else progress_to_go
        return self.alpha * credit(member.values)
