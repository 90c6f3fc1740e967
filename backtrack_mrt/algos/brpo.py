"""Anytime reasoning: the whole value curve as the objective (AnytimeReasoner, Qi et al. 2505.13438)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import Valued, rewards_to_go
from backtrack_mrt.types import FloatArray, Group, Scored


class Brpo(Valued):
    """Budget relative policy optimisation: a turn is worth what the answers forced from its end on are worth.

    Budgets are turns: s_{i,k} is the value at the end of turn k = 0 … S−1, S the most turns in the group, and from a
    trajectory's end on its outcome R_i. With the prior p_k of stopping after turn k, the return of turn j is
    G_{i,j} = Σ_{k ≥ j} p_k·s_{i,k}, and its weight is G_{i,j} less two baselines mixed by how much came before:

        A_{i,j} = G_{i,j} − (j/S)·V1 − (1 − j/S)·V2
        V1 = (mean of s_{i,0} … s_{i,j−1}, each counting `recency` times the one before it)·Σ_{k ≥ j} p_k
        V2 = mean_g G_{g,j}

    V1 is known before the turn. V2 is over all members, those that have ended included, so it does not depend on who
    goes on. With one turn each this is GRPO. Left out: the paper's budgets in tokens, the same for all.
    """

    summary: ClassVar[str] = "the value of every prefix, not of the end alone (AnytimeReasoner)"
    compares: ClassVar[bool] = True
    prior: Literal["uniform", "linear"] = Field(
        "uniform", description="how likely thinking is stopped after turn k: alike, or in proportion to k"
    )
    recency: float = Field(2.0, ge=1, description="how much more each earlier value counts than the one before it")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        most = max(len(m.trajectory.turns) for m in group.members)
        scores_GS = np.array([_scores(m, most) for m in group.members])
        prior_S = np.ones(most) if self.prior == "uniform" else np.arange(1.0, most + 1)
        prior_S /= prior_S.sum()
        return_GS = rewards_to_go(prior_S * scores_GS)
        share_S = np.arange(most) / most
        before_GS = self._before(scores_GS) * rewards_to_go(prior_S)
        baseline_GS = share_S * before_GS + (1 - share_S) * return_GS.mean(axis=0)
        advantage_GS = return_GS - baseline_GS
        return [row[: len(m.trajectory.turns)] for row, m in zip(advantage_GS, group.members, strict=True)]

    def _before(self, scores_GS: FloatArray) -> FloatArray:
        """The weighted mean of the scores before every turn; 0 before the first."""
        before_GS, total_G, count = np.zeros_like(scores_GS), np.zeros(len(scores_GS)), 0.0
        for k in range(1, scores_GS.shape[1]):
            total_G = total_G / self.recency + scores_GS[:, k - 1]
            count = count / self.recency + 1
            before_GS[:, k] = total_G / count
        return before_GS


def _scores(member: Scored, most: int) -> FloatArray:
    """The value at the end of every turn but the last, then the outcome, held. Shape (most,)."""
    assert member.values is not None  # needs_values
    inner = member.values[1:-1]
    return np.append(inner, np.full(most - len(inner), member.trajectory.outcome))
