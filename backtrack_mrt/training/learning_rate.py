"""Training to a budget of sampled tokens: the learning rate by the share that is used up, and the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from backtrack_mrt.config import TrainingSection
from backtrack_mrt.types import TokenLedger


def rate_at(done: float, training: TrainingSection) -> float:
    """The learning rate, as a share of its peak, after the share `done` of the budget: a warm-up, then the schedule."""
    if done < training.warmup_ratio:
        return (done + 1 / training.steps) / (training.warmup_ratio + 1 / training.steps)
    left = (1 - done) / max(1 - training.warmup_ratio, 1e-9)
    shapes = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
    return shapes[training.lr_schedule]


class StopAtBudget(TrainerCallback):
    """Ends training when the run's sampled tokens are used up: at the step whose end is nearest to that. ledgers: asks
    for those of the steps so far."""

    def __init__(self, budget: int, ledgers: Callable[[], Sequence[TokenLedger]]) -> None:
        self.budget, self.ledgers = budget, ledgers

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        sampled = [ledger.sampled for ledger in self.ledgers()]
        if sum(sampled) + sampled[-1] / 2 > self.budget:
            control.should_training_stop = control.should_save = True
