"""Supervised fine-tuning on demonstrations: the warm start."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from backtrack_mrt.algos.base import Algorithm, every_turn
from backtrack_mrt.types import FloatArray, Group


class Sft(Algorithm):
    """Cross-entropy with weight 1 on every turn of a demonstration (STaR, 2203.14465, without the model's own
    rollouts). Spans that are not to be learnt, such as the wrong part of an attempt, carry no loss in any case."""

    summary: ClassVar[str] = "cross-entropy on demonstrations (warm start)"
    loss: ClassVar[Literal["rl", "ce"]] = "ce"

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        if self.unit != "token":
            return f"unit: {self.unit} is for the model's own trajectories; demonstrations are fitted token by token"
        return None

    def turn_weights(self, group: Group) -> list[FloatArray]:
        return every_turn(np.ones(len(group.members)), group)
