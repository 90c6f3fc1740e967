"""Training to a budget of tokens: the learning rate by the share that is used up, and the end. Budgets of a
trajectory in stages: the policy at the end of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from backtrack_mrt.config import TrainingSection
from backtrack_mrt.training.trainer_setup import Setup, step_is_over
from backtrack_mrt.types import TokenLedger

KINDS = ("sampled", "env", "prover")  # of tokens, as in a ledger


def rate_at(done: float, training: TrainingSection) -> float:
    """The learning rate, as a share of its peak, after the share `done` of the budget: a warm-up, then the schedule."""
    if done < training.warmup_ratio:
        return (done + 1 / training.steps) / (training.warmup_ratio + 1 / training.steps)
    left = (1 - done) / max(1 - training.warmup_ratio, 1e-9)
    shapes = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
    return shapes[training.lr_schedule]


def counted_tokens(training: TrainingSection) -> tuple[str, ...]:
    """The metrics of a step that its budget of tokens counts."""
    kinds = KINDS if training.total_tokens else KINDS[:1]
    return tuple(f"tokens/step_{kind}" for kind in kinds)


def used_up(training: TrainingSection, ledgers: Sequence[TokenLedger]) -> bool:
    """Whether another step would end further from the budget of tokens than the steps so far do."""
    spent, budget = [training.spent(ledger) for ledger in ledgers], training.token_budget
    return budget is not None and bool(spent) and sum(spent) + spent[-1] / 2 > budget


class StopAtBudget(TrainerCallback):
    """Ends training when the run's budget of tokens is used up: at the step whose end is nearest to that. ledgers: asks
    for those of the steps so far."""

    def __init__(self, training: TrainingSection, ledgers: Callable[[], Sequence[TokenLedger]]) -> None:
        self.training, self.ledgers = training, ledgers

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if step_is_over(args, state) and used_up(self.training, self.ledgers()):
            control.should_training_stop = control.should_save = True


class StageEnds(TrainerCallback):
    """Keeps the policy (`stages/BUDGET` in the run directory) and a checkpoint where a stage of the budget ends. That
    of the last stage is the run's. done: asks for the share of the training that is over."""

    def __init__(self, setup: Setup, done: Callable[[], float]) -> None:
        self.setup, self.done = setup, done
        self._budget = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if step_is_over(args, state):
            self._budget = self.setup.config.protocol_at(self.done()).token_budget

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not step_is_over(args, state):
            return
        if self.setup.config.protocol_at(self.done()).token_budget > self._budget:
            folder = self.setup.run.path / "stages" / str(self._budget)
            folder.parent.mkdir(exist_ok=True)
            self.setup.save_policy(folder)
            control.should_save = True
