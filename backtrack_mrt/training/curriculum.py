"""Token budgets in stages, one after the other, and the policy at the end of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from backtrack_mrt.training.trainer_setup import Setup, step_is_over


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
