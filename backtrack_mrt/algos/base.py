"""The algorithm seam: a pure map from scored groups to one weight per turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from backtrack_mrt.types import FloatArray, Group


class Algorithm(BaseModel, ABC):
    """Turns the trajectories of a problem into turn weights. Instances are frozen settings; no sampling, no optimiser,
    no tokens. A weight applies to every token that its turn sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: ClassVar[str] = ""
    loss: ClassVar[Literal["rl", "ce"]] = "rl"  # clipped policy gradient, or weighted cross-entropy
    needs_values: ClassVar[bool] = False  # whether the meta-prover runs in training

    @abstractmethod
    def turn_weights(self, group: Group) -> list[FloatArray]:
        """One array (E_i,) per member i of the group."""
