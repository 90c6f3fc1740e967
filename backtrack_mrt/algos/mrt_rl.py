"""MRT by reinforcement learning: the outcome plus dense progress (Qu et al. 2503.07572, eq. 2 and §6)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import Valued, generalised_advantages, outcome_advantages, progress_to_go, turn_progress
from backtrack_mrt.algos.collecting import Collection, Independent, TerminateOrContinue
from backtrack_mrt.types import FloatArray, Group, Phase, Scored


class MrtRl(Valued):
    """A_{i,j} = Â_i + α·p_{i,j}, with `credit: return_to_go` Â_i + α·(V_E − V_j), with `credit: prefix` Â_i, with
    `credit: gae` Σ_k λ^k δ_{i,j+k}.

    Progress must reach the gradient per turn: summed over a trajectory it telescopes to V_E − V_0, and group-centred
    that is plain GRPO again. Left out: centring of the progress itself; V_j already is the turn's baseline, and means
    per turn index are biased when the policy chooses when to stop.

    `prefix` is the paper's own form (fig. 6, 13): the group shares a prefix c_j, half of it terminates there (forced
    answer), half goes on; outcomes centred across both halves are the progress bonus implicitly. One scalar per
    trajectory, α plays no part, and values are only logged. With `prefix_baseline: terminated` the mean is that of the
    half that terminates, an estimate of V_j: going on is paid what it gains over an answer now.

    `gae` credits a turn with the change in the chance that the *trajectory* ends right, b, where progress is the change
    in that of an answer forced now: δ_j = b(c_{j+1}) − b(c_j), and R − b for the last turn. λ lets later changes count
    for earlier turns, too; λ = 1 is REINFORCE with a baseline per state. It needs no group; α plays no part.
    """

    summary: ClassVar[str] = "outcome + α·progress per turn (MRT)"
    compares: ClassVar[bool] = True
    alpha: float = Field(1.0, ge=0, description="turn, return_to_go: weight α of the progress; 0 is GRPO")
    credit: Literal["turn", "return_to_go", "prefix", "gae"] = Field(
        "turn",
        description="a turn's own progress, all from it on, terminate/continue groups from a drawn prefix, or "
        "generalised advantages over turns",
    )
    gae_lambda: float = Field(0.5, ge=0, le=1, description="gae: how much later changes count for a turn (λ)")
    baseline: Literal["critic", "value"] = Field(
        "critic", description="gae: b is fitted on earlier batches, or V itself (poor: the policy goes on after V)"
    )
    prefix_baseline: Literal["group", "terminated"] = Field(
        "group", description="prefix: outcomes less the mean of the whole group, or of the half that answers at once"
    )
    scale_outcome: bool = Field(False, description="divide the outcome advantage by the group's standard deviation")

    @property
    def collection(self) -> Collection:
        return TerminateOrContinue() if self.credit == "prefix" else Independent()

    @property
    def needs_critic(self) -> bool:
        return self.credit == "gae" and self.baseline == "critic"

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        if self.credit == "prefix" and group_size % 2:
            return f"credit: prefix needs an even group (half terminates, half goes on), not {group_size}"
        return None if self.credit == "gae" else super().objection(max_answers=max_answers, group_size=group_size)

    def turn_weights(self, group: Group) -> list[FloatArray]:
        if self.credit == "gae":
            return [self._generalised(member) for member in group.members]
        advantages_G = outcome_advantages(group.outcomes, self.scale_outcome)
        if self.credit == "prefix" and self.prefix_baseline == "terminated":
            ended_G = [member.trajectory.turns[-1:] for member in group.members]
            now_G = [bool(last) and last[0].spec.phase == Phase.FORCE for last in ended_G]
            advantages_G -= advantages_G[now_G].mean() if any(now_G) else 0.0
        return [a + self._bonus(member) for member, a in zip(group.members, advantages_G, strict=True)]

    def _generalised(self, member: Scored) -> FloatArray:
        assert member.values is not None  # needs_values
        baselines = member.values[:-1] if self.baseline == "value" else member.baselines
        assert baselines is not None  # needs_critic
        return generalised_advantages(member.trajectory.outcome, baselines, self.gae_lambda)

    def _bonus(self, member: Scored) -> FloatArray:
        """α times what each turn is credited with, shape (E,)."""
        if self.credit == "prefix":
            return np.zeros(len(member.trajectory.turns))
        assert member.values is not None  # needs_values
        credit = turn_progress if self.credit == "turn" else progress_to_go
        return self.alpha * credit(member.values)
