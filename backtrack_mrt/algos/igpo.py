"""Information gain as the reward of a turn (IGPO, Wang et al. 2510.14967)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import Valued, rewards_to_go
from backtrack_mrt.types import FloatArray, Group


class Igpo(Valued):
    """A_{i,j} = Σ_{k ≥ j} γ^{k−j}·z_{i,k}: the reward r of a turn is its progress, that of the last turn the outcome R;
    z = (r − mean r) / (std r + 1e-4) over all turns of the group.

    It differs from `mrt-rl` with `credit: return_to_go` in what is centred: the rewards of turns, not outcomes. So the
    number of turns counts: every further one costs its mean. The paper's likelihood is the mean per token of the
    answer; here it is that of the whole answer, as estimated by the meta-prover.
    """

    summary: ClassVar[str] = "information gain of every turn and the outcome, as a return (IGPO)"
    compares: ClassVar[bool] = True
    discount: float = Field(1.0, gt=0, le=1, description="γ: what the reward of the next turn counts")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        rewards = [  # progress of every turn but the last, whose reward is the outcome
            np.append(member.progress[:-1], member.trajectory.outcome)[: len(member.trajectory.turns)]
            for member in group.members
        ]
        pooled = np.concatenate(rewards)
        centre, scale = (pooled.mean(), pooled.std() + 1e-4) if len(pooled) else (0.0, 1.0)
        return [rewards_to_go((row - centre) / scale, self.discount) for row in rewards]
