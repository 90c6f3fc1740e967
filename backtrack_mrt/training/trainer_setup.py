"""What both trainers share: what they are made with, their settings, the log of the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from backtrack_mrt.config import Config
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.checkpoints import Checkpoint, Checkpoints
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.progress import Update
from backtrack_mrt.training.packing import packable

BetweenSteps = Callable[[int], float]  # updates done → seconds spent


@dataclass(frozen=True)
class Setup:
    """What a trainer is made with, whatever it fits. between_steps: called after every update but the last.
    save_policy: writes the policy as it is into a folder."""

    model: Any
    tokenizer: Any
    config: Config
    run: RunDir
    between_steps: BetweenSteps = lambda step: 0.0
    save_policy: Callable[[Path], None] = lambda folder: None

    @cached_property
    def packs(self) -> bool:
        """Whether the model takes packed rows. To be asked first before its weights are shared out."""
        return packable(self.model)

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's."""
        return Checkpoints(self.run.checkpoints, self.config.training.keep_checkpoints)

    def checkpoint(self, resume: bool) -> Checkpoint | None:
        """The one to go on from (None: from the start); what the run logged after it is forgotten."""
        checkpoint = self.checkpoints.newest() if resume else None
        self.run.rewind(checkpoint.step if checkpoint else 0)
        processes.wait()
        return checkpoint


def whole_steps(args: Any, state: Any) -> int:
    """Steps of a training so far: the updates on one batch of rollouts are one, and share a row of the log."""
    return int(state.global_step // args.logging_steps)


def step_is_over(args: Any, state: Any) -> bool:
    """Whether the last update was the last one of its step."""
    return bool(state.global_step % args.logging_steps == 0)


class RunLog(TrainerCallback):
    """Writes every step's metrics to the run directory and moves the progress bar. `bar`: set while it is shown."""

    bar: Update

    def __init__(self, run: RunDir, seconds: dict[str, float], first_step: int = 0) -> None:
        self.run, self.seconds, self.first_step = run, seconds, first_step
        self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if step_is_over(args, state):
            self._start = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if logs is None or "grad_norm" not in logs:
            return  # the closing log of the whole training has no step of its own
        times = {f"time/{part}": seconds for part, seconds in self.seconds.items()}
        elapsed, evaluated = time.perf_counter() - self._start, self.seconds.pop("evaluate", 0.0)  # not of the step
        update = elapsed - evaluated - sum(self.seconds.values())
        times |= {"time/update": update, "time/step": elapsed - evaluated}
        self.seconds.clear()
        found = {**logs, **times}
        step = whole_steps(args, state)
        self.run.log(self.first_step + step, found)
        state.log_history.clear()  # it would grow in memory and in every checkpoint; the run's log has it all
        self.bar.update(1, found | {"step": step})


def shared_settings(config: Config, run: RunDir) -> dict[str, Any]:
    """What both trainers are told. What is not said here is TRL's default."""
    training, rows, updates = config.training, config.rows_per_update, config.updates_per_step
    micro_batch = min(training.micro_batch_size, rows // processes.count())
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": rows // (micro_batch * processes.count()),
        "max_steps": training.most_steps * updates,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_schedule,
        "warmup_steps": round(training.warmup_ratio * training.steps * updates),
        "weight_decay": training.weight_decay,
        "adam_beta2": training.adam_beta2,
        "max_grad_norm": training.max_grad_norm,
        "use_cpu": on_cpu,
        "bf16": config.model.dtype == "bfloat16",
        "ddp_find_unused_parameters": False,  # there are none
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "disable_tqdm": True,
        "logging_steps": updates,
        "logging_nan_inf_filter": False,  # a NaN must not be logged as 0.0
        "save_strategy": "steps",  # and after the last one
        "save_steps": training.save_every * updates or sys.maxsize,
        "report_to": "none",  # see backtrack_mrt.runs.trackers
        "remove_unused_columns": False,
        "seed": config.seed,
    }
