"""The update, by TRL. The only file that touches TRL.

`PolicyTrainer` overrides one method of `GRPOTrainer`: rollouts come in through `rollout_func`, the parent does what it
always does, and the per-turn weights of the algorithm then replace its scalar advantages, spread over the tokens that
each turn sampled, shape (B, T). The loss, clipping, accumulation, checkpoints and multi-process set-up are TRL's.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.config import Config
from backtrack_mrt.metrics import rollout_metrics
from backtrack_mrt.rollout import Collector, group_by_problem, trajectory_seeds
from backtrack_mrt.types import FloatArray, Problem, Sampling, Scored, Trajectory

OnStep = Callable[[int, Sequence[Scored], dict[str, float]], None]


def spread(weights: Sequence[FloatArray], trajectories: Sequence[Trajectory], width: int) -> torch.Tensor:
    """Turn weights on the turn's own sampled tokens, 0 on the environment's, shape (B, width)."""
    tokens_BT = torch.zeros(len(trajectories), width)
    for row, (turn_weights, trajectory) in enumerate(zip(weights, trajectories, strict=True)):
        index = np.array(trajectory.turn_index(), dtype=np.int64)
        padded = np.append(turn_weights, 0.0)  # index −1, the environment's tokens, picks the 0
        tokens_BT[row, : len(index)] = torch.from_numpy(padded[index]).float()
    return tokens_BT


class PolicyTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO with one weight per turn.

    problems: what to train on, in the order of training; problem k of update u is row u·problems_per_step + k.
    on_step: called on the main process after every rollout with (step, this process's trajectories, metrics).
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        problems: Sequence[Problem],
        algorithm: Algorithm,
        collector: Collector,
        config: Config,
        output_dir: Path,
        on_step: OnStep,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.problems, self.algorithm, self.collector, self.run_config = problems, algorithm, collector, config
        self.on_step = on_step
        self._scored: list[Scored] = []
        super().__init__(
            model=model,
            processing_class=tokenizer,
            args=grpo_config(config, output_dir),
            train_dataset=Dataset.from_dict({"prompt": [p.question for p in problems], "row": range(len(problems))}),
            reward_funcs=outcome_reward,
            rollout_func=self._rollout,
            callbacks=list(callbacks),
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._asked = [self.problems[row["row"]] for row in inputs]
        start = time.perf_counter()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        weights = self._local_weights()
        width = output["completion_ids"].size(1)
        trajectories = [scored.trajectory for scored in self._scored]
        output["advantages"] = spread(weights, trajectories, width).to(output["completion_ids"].device)
        self._report(time.perf_counter() - start)
        return output

    def _rollout(self, prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's hook: one trajectory per asked problem (already repeated per group member), as ids and mask."""
        rank, rows = self.accelerator.process_index, len(self._asked)
        seeds = trajectory_seeds(self.run_config.seed, self.state.global_step + 1, rows, first_row=rank * rows)
        engine = self.collector.engine
        engine.sync(self.state.global_step)
        sampling = Sampling(self.run_config.training.temperature, stop_ids=self.collector.dialogue.chat.stop_ids)
        self._scored = self.collector.collect(self._asked, seeds, sampling)
        engine.release()
        trajectories = [scored.trajectory for scored in self._scored]
        filler = [self.processing_class.eos_token_id]  # TRL needs at least one token per row; masked
        return {
            "prompt_ids": [list(t.prompt_ids) for t in trajectories],
            "completion_ids": [list(t.token_ids[len(t.prompt_ids) :]) or filler for t in trajectories],
            "env_mask": [[int(j >= 0) for j in t.turn_index()] or [0] for t in trajectories],
            "logprobs": None,
            "outcome": [t.outcome for t in trajectories],
        }

    def _local_weights(self) -> list[FloatArray]:
        """Turn weights of this process's rows. A group may span processes, so all rows are gathered first."""
        everyone: list[Scored] = gather_object(self._scored)
        groups = group_by_problem(everyone, self.num_generations)
        weights = [row for group in groups for row in self.algorithm.turn_weights(group)]
        first = self.accelerator.process_index * len(self._scored)
        return weights[first : first + len(self._scored)]

    def _report(self, seconds: float) -> None:
        metrics = rollout_metrics(self._scored)
        for name, value in metrics.items():
            if not math.isnan(value):
                self._metrics["train"][name].append(value)
        if self.accelerator.is_main_process:
            self.on_step(self.state.global_step + 1, self._scored, metrics | {"time/collect": seconds})


def outcome_reward(completions: Sequence[Any], outcome: Sequence[float], **_: Any) -> list[float]:
    """TRL's mandatory reward function: the outcome R, which it logs as `reward`."""
    return list(outcome)


def grpo_config(config: Config, output_dir: Path) -> GRPOConfig:
    """TRL's settings. What is not said here is TRL's default."""
    training, processes = config.training, int(os.environ.get("WORLD_SIZE", "1"))
    rows = training.problems_per_step * training.group_size
    on_cpu = not torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(output_dir),
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=rows // (training.micro_batch_size * processes),
        num_generations=training.group_size,
        max_steps=training.steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_schedule,
        warmup_steps=round(training.warmup_ratio * training.steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        temperature=training.temperature,
        loss_type=training.loss,
        epsilon=training.clip,
        beta=training.kl,
        shuffle_dataset=False,  # the problems come in the order of training: a resumed run needs no sampler state
        max_completion_length=None,
        scale_rewards="none",
        use_cpu=on_cpu,
        bf16=config.model.dtype == "bfloat16" and not on_cpu,
        gradient_checkpointing=config.model.gradient_checkpointing,
        disable_tqdm=True,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN must not be logged as 0.0
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or 500,
        report_to=config.report_to,
        remove_unused_columns=False,
        seed=config.seed,
    )
