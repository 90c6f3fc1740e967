"""GRPO with a reward that is smaller for long right answers (Arora & Zanette 2502.04463)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import length_penalised
from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.types import FloatArray, Group


class LengthPenalty(Grpo):
    """A_{i,j} = Â of R·(1 − λ·σ((len − mean_len) / std_len)), mean and deviation over the problem's right trajectories;
    len is the sampled tokens, σ the logistic function."""

    summary: ClassVar[str] = "outcome, less for long right trajectories"
    strength: float = Field(0.2, ge=0, lt=1, description="λ: share of the reward that length can cost")

    def rewards(self, group: Group) -> FloatArray:
        lengths_G = np.array([float(m.trajectory.sampled_tokens) for m in group.members])
        return length_penalised(group.outcomes, lengths_G, self.strength)
