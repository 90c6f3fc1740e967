"""What both trainers share: settings, and the log of the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from backtrack_mrt.config import Config
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.directory import RunDir

OnStep = Callable[[int, Mapping[str, float]], None]  # (steps done, metrics)
BetweenSteps = Callable[[int], float]  # updates done → seconds spent


class RunLog(TrainerCallback):  # type: ignore[misc]
    """Writes every step's metrics to the run directory and moves the progress bar."""

    def __init__(self, run: RunDir, on_step: OnStep, seconds: dict[str, float], first_step: int = 0) -> None:
        self.run, self.on_step, self.seconds, self.first_step = run, on_step, seconds, first_step
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "grad_norm" not in logs:
            return  # the closing log of the whole training has no step of its own
        times = {f"time/{part}": seconds for part, seconds in self.seconds.items()}
        elapsed, evaluated = time.perf_counter() - self._start, self.seconds.pop("evaluate", 0.0)  # not of the step
        update = elapsed - evaluated - sum(self.seconds.values())
        times |= {"time/update": update, "time/step": elapsed - evaluated}
        self.seconds.clear()
        self.run.log(self.first_step + state.global_step, logs | times)
        state.log_history.clear()  # it would grow in memory and in every checkpoint; the run's log has it all
        self.on_step(1, logs | times | {"step": state.global_step})


def shared_settings(config: Config, run: RunDir) -> dict[str, Any]:
    """What both trainers are told. What is not said here is TRL's default."""
    training, rows = config.training, config.rows_per_update
    micro_batch = min(training.micro_batch_size, rows)
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": rows // (micro_batch * processes.count()),
        "max_steps": training.most_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_schedule,
        "warmup_steps": round(training.warmup_ratio * training.steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "use_cpu": on_cpu,
        "bf16": config.model.dtype == "bfloat16",
        "ddp_find_unused_parameters": False,  # there are none
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "disable_tqdm": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a NaN must not be logged as 0.0
        "save_strategy": "steps",  # and after the last one
        "save_steps": training.save_every or sys.maxsize,
        "report_to": "none",  # see backtrack_mrt.runs.trackers
        "remove_unused_columns": False,
        "seed": config.seed,
    }
