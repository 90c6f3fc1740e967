"""The update, by TRL. The only file that touches TRL.

`PolicyTrainer` changes one thing in `GRPOTrainer`: rollouts come in through `rollout_func`, the parent does what it
always does, and the per-turn weights of the algorithm then replace its scalar advantages, spread over the tokens that
each turn sampled, shape (B, T). Beside that it only re-buckets the micro-batches. The loss, clipping, accumulation,
checkpoints and multi-process set-up are TRL's.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.collection import Collector, groups_of
from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.metrics import rollout_metrics
from backtrack_mrt.rollout import trajectory_seeds
from backtrack_mrt.runlog import RunDir
from backtrack_mrt.types import FloatArray, Problem, Sampling, Scored, Trajectory

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental; the version is pinned
IGNORED = -100  # label of a token without loss, the convention of torch's cross-entropy
BUDGET_STEPS = (
    4  # with a budget of sampled tokens training ends after this many times the configured steps at the latest
)
OnStep = Callable[..., None]  # (steps done, **metrics to show)


def spread(weights: Sequence[FloatArray], trajectories: Sequence[Trajectory], width: int) -> torch.Tensor:
    """Turn weights on the turn's own sampled tokens, 0 on the environment's, shape (B, width)."""
    tokens_BT = torch.zeros(len(trajectories), width)
    for row, (turn_weights, trajectory) in enumerate(zip(weights, trajectories, strict=True)):
        index = np.array(trajectory.turn_index(), dtype=np.int64)
        padded = np.append(turn_weights, 0.0)  # index −1, the environment's tokens, picks the 0
        tokens_BT[row, : len(index)] = torch.from_numpy(padded[index]).float()
    return tokens_BT


def by_length(batches: list[dict[str, Any]], per_update: int) -> list[dict[str, Any]]:
    """The micro-batches of each update with rows of like length together and padding cut off.

    Multi-turn trajectories differ much in length (solved at once, or never); padded to the longest, most of the update
    would be spent on padding. The sum of the update's gradients does not depend on which row is in which micro-batch.
    """
    bucketed = []
    for start in range(0, len(batches), per_update):
        update = batches[start : start + per_update]
        rows = {
            name: torch.cat([batch[name] for batch in update]) if update[0][name].dim() else update[0][name]
            for name in update[0]
        }
        order = (rows["prompt_mask"].sum(1) + rows["completion_mask"].sum(1)).argsort()
        for chunk in order.split(len(update[0]["prompt_ids"])):
            batch = {name: rows[name][chunk] if rows[name].dim() else rows[name] for name in rows}
            prompt, completion = (int(batch[f"{side}_mask"].sum(1).max()) for side in ("prompt", "completion"))
            for name, tensor in batch.items():  # prompts are padded on the left, completions on the right
                if name.startswith("prompt_"):
                    batch[name] = tensor[:, tensor.size(1) - prompt :]
                elif tensor.dim() == 2:
                    batch[name] = tensor[:, :completion]
            bucketed.append(batch)
    return bucketed


class _RunLog(TrainerCallback):  # type: ignore[misc]
    """Writes every step's metrics to the run directory and moves the progress bar."""

    def __init__(self, run: RunDir, on_step: OnStep, seconds: dict[str, float], first_step: int = 0) -> None:
        self.run, self.on_step, self.seconds, self.first_step = run, on_step, seconds, first_step
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if not state.is_world_process_zero or "grad_norm" not in logs:
            return  # the closing log of the whole training has no step of its own
        elapsed = time.perf_counter() - self._start
        times = {f"time/{part}": seconds for part, seconds in self.seconds.items()}
        times |= {"time/update": elapsed - sum(self.seconds.values()), "time/step": elapsed}
        self.run.log(self.first_step + state.global_step, logs | times)
        shown = {name: logs[name] for name in ("reward", "completions/mean_length", "loss") if name in logs}
        self.on_step(1, **{name.split("/")[0]: value for name, value in shown.items()})


class _StopAtBudget(TrainerCallback):  # type: ignore[misc]
    """Ends training when the run's sampled tokens are used up: at the step whose end is nearest to that."""

    def __init__(self, trainer: PolicyTrainer, budget: int) -> None:
        self.trainer, self.budget = trainer, budget

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        latest, total = self.trainer.sampled_tokens[-1], sum(self.trainer.sampled_tokens)
        control.should_training_stop |= total + latest / 2 > self.budget


class PolicyTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO with one weight per turn.

    problems: what to train on, in the order of training; problem k of update u is row u·problems_per_step + k.
    """

    _buffered_inputs: Any  # the parent's: the micro-batches of the latest rollouts

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        problems: Sequence[Problem],
        algorithm: Algorithm,
        collector: Collector,
        config: Config,
        run: RunDir,
        on_step: OnStep,
    ) -> None:
        self.problems, self.algorithm, self.collector, self.run_config = problems, algorithm, collector, config
        self.run = run
        self.sampled_tokens: list[int] = []  # in the rollouts of each step, by all processes
        self._asked: list[Problem] = []
        self._scored: list[Scored] = []
        self._bucketed: list[dict[str, Any]] | None = None
        self._seconds: dict[str, float] = {}  # of the latest rollout, by part
        super().__init__(
            model=model,
            processing_class=tokenizer,
            args=grpo_config(config, run),
            train_dataset=Dataset.from_dict({"prompt": [p.question for p in problems], "row": range(len(problems))}),
            reward_funcs=outcome_reward,
            rollout_func=self._rollout,
            callbacks=[_RunLog(run, on_step, self._seconds)],
        )
        if config.training.sampled_tokens is not None:
            self.add_callback(_StopAtBudget(self, config.training.sampled_tokens))

    def fit(self, resume: bool) -> None:
        """Train to the end and save the policy."""
        _fit(self, self.run, resume)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """TRL's over the steps; with a budget of sampled tokens, the same shape over the share that is used up."""
        training = self.run_config.training
        if training.sampled_tokens is None:
            return super().create_scheduler(num_training_steps, optimizer)
        budget = training.sampled_tokens

        def factor(_: int) -> float:
            done = min(sum(self.sampled_tokens) / budget, 1.0)
            if done < training.warmup_ratio:
                return (done + 1 / training.steps) / (training.warmup_ratio + 1 / training.steps)
            left = (1 - done) / max(1 - training.warmup_ratio, 1e-9)
            shapes = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
            return shapes[training.lr_schedule]

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._asked = [self.problems[row["row"]] for row in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        completion_ids = output["completion_ids"]
        trajectories = [scored.trajectory for scored in self._scored]
        weights_BT = spread(self._local_weights(), trajectories, width=completion_ids.size(1))
        output["advantages"] = weights_BT.to(completion_ids.device)
        for name, value in rollout_metrics(self._scored).items():
            self._metrics["train"][name].append(value)
        return output

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not self._bucketed:  # fresh rollouts
            self._bucketed = self._buffered_inputs = by_length(
                self._buffered_inputs, self.args.gradient_accumulation_steps
            )
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _rollout(self, prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's hook: one trajectory per asked problem (already repeated per group member), as ids and mask."""
        collector, step = self.collector, self.state.global_step + 1
        rank, rows = self.accelerator.process_index, len(self._asked)
        seeds = trajectory_seeds(self.run_config.seed, step, rows, first_row=rank * rows)
        sampling = Sampling(self.run_config.training.temperature, stop_ids=collector.dialogue.chat.stop_ids)
        spent, sampled = dict(collector.seconds), collector.ledger.sampled
        collector.engine.sync(step)
        self._scored = collector.collect(self._asked, seeds, sampling)
        collector.engine.release()
        self.sampled_tokens.append(sum(gather_object([collector.ledger.sampled - sampled])))
        self._metrics["train"]["tokens/sampled_step"].append(self.sampled_tokens[-1])
        self._seconds.update({part: total - spent[part] for part, total in collector.seconds.items()})
        if self.accelerator.is_main_process and self.run_config.training.saved_rollouts:
            self.run.save_trajectories(step, self._scored[: self.run_config.training.saved_rollouts])
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
        groups = groups_of(everyone, self.num_generations)
        weights = [row for group in groups for row in self.algorithm.turn_weights(group)]
        first = self.accelerator.process_index * len(self._scored)
        return weights[first : first + len(self._scored)]


class Row(TypedDict):
    """A trajectory to fit: its ids and the weight of every token in the loss, both (T,); 0 where there is none."""

    input_ids: list[int]
    weights: list[float]


def weighted_row(trajectory: Trajectory, turn_weights: FloatArray, learn: Sequence[bool] | None = None) -> Row:
    """Turn weights on the tokens that each turn sampled. learn: which tokens after the prompt may carry loss (all)."""
    padded = np.append(turn_weights, 0.0)  # index −1, a token that was not sampled, picks the 0
    sampled = padded[trajectory.turn_index()]
    weights = sampled if learn is None else sampled * np.array(learn)
    return Row(input_ids=list(trajectory.token_ids), weights=[0.0] * len(trajectory.prompt_ids) + weights.tolist())


def padded_rows(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """A batch (B, T), padded on the right. `labels` tell TRL which tokens count."""
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    ids = pad([torch.tensor(row["input_ids"]) for row in rows])
    mask = pad([torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows])
    weights = pad([torch.tensor(row["weights"]) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": ids.masked_fill(weights == 0, IGNORED),
        "weights": weights,
    }


class CrossEntropyTrainer(SFTTrainer):  # type: ignore[misc]
    """Weighted cross-entropy: Σ_t w_t · −log π(token_t) over the number of tokens with weight.

    epochs: passes over the rows; None trains for the config's steps. first_step: updates that were done before, so that
    the steps of an iterated algorithm are counted on.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        rows: Sequence[Row],
        config: Config,
        run: RunDir,
        on_step: OnStep,
        epochs: int | None = None,
        first_step: int = 0,
    ) -> None:
        self.run, self.first_step = run, first_step
        super().__init__(
            model=model,
            processing_class=tokenizer,
            args=cross_entropy_config(config, run, epochs),
            train_dataset=Dataset.from_list([dict(row) for row in rows]),
            data_collator=padded_rows,
            callbacks=[_RunLog(run, on_step, {}, first_step)],
        )

    def fit(self, resume: bool = False) -> None:
        """Train to the end and save the policy."""
        _fit(self, self.run, resume, self.first_step)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        ids, weights = inputs["input_ids"], inputs["weights"]
        outputs = model(input_ids=ids, attention_mask=inputs["attention_mask"], use_cache=False)
        learnt = weights[:, 1:] > 0
        losses = torch.nn.functional.cross_entropy(
            outputs.logits[:, :-1][learnt].float(), ids[:, 1:][learnt], reduction="none"
        )
        count = learnt.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * weights[:, 1:][learnt]).sum() / count
        return (loss, outputs) if return_outputs else loss


def _fit(trainer: GRPOTrainer | SFTTrainer, run: RunDir, resume: bool, first_step: int = 0) -> None:
    trainer.remove_callback(PrinterCallback)
    checkpoint = get_last_checkpoint(str(run.checkpoints)) if resume else None
    run.rewind(int(checkpoint.rpartition("-")[2]) if checkpoint else first_step)
    if isinstance(trainer, PolicyTrainer):
        trainer.sampled_tokens = [row["tokens/sampled_step"] for row in run.metrics()]
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(run.model))


def outcome_reward(completions: Sequence[Any], outcome: Sequence[float], **_: Any) -> list[float]:
    """TRL's mandatory reward function: the outcome R, which it logs as `reward`."""
    return list(outcome)


def grpo_config(config: Config, run: RunDir) -> GRPOConfig:
    """TRL's settings for reinforcement learning."""
    training = config.training
    return GRPOConfig(
        **_shared_settings(config, run),
        num_generations=training.group_size,
        temperature=training.temperature,
        loss_type=training.loss,
        epsilon=training.clip,
        beta=training.kl,
        scale_rewards="none",
        shuffle_dataset=False,  # the problems come in the order of training: a resumed run needs no sampler state
        max_completion_length=None,
    )


def cross_entropy_config(config: Config, run: RunDir, epochs: int | None) -> SFTConfig:
    """TRL's settings for cross-entropy on ready-made rows."""
    passes = {"max_steps": -1, "num_train_epochs": epochs, "warmup_steps": 0, "save_strategy": "no"}
    return SFTConfig(
        **_shared_settings(config, run) | ({} if epochs is None else passes),
        train_sampling_strategy="group_by_length",
        max_length=None,
        packing=False,
        padding_free=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _shared_settings(config: Config, run: RunDir) -> dict[str, Any]:
    """What both trainers are told. What is not said here is TRL's default."""
    training = config.training
    rows = training.problems_per_step * (training.group_size if config.algorithm.loss == "rl" else 1)
    micro_batch, processes = min(training.micro_batch_size, rows), int(os.environ.get("WORLD_SIZE", "1"))
    if rows % (micro_batch * processes):
        reason = f"{rows} rows per update cannot be shared by {processes} processes in micro-batches of that size"
        raise UserError("training.micro_batch_size", micro_batch, reason, "Lower it, or start fewer processes.")
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": rows // (micro_batch * processes),
        "max_steps": training.steps * (1 if training.sampled_tokens is None else BUDGET_STEPS),
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_schedule,
        "warmup_steps": round(training.warmup_ratio * training.steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "use_cpu": on_cpu,
        "bf16": config.model.dtype == "bfloat16" and not on_cpu,
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "disable_tqdm": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a NaN must not be logged as 0.0
        "save_strategy": "steps" if training.save_every else "no",
        "save_steps": training.save_every or 500,
        "report_to": config.report_to or "none",
        "remove_unused_columns": False,
        "seed": config.seed,
    }
