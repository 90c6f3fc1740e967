"""Weighted cross-entropy on trajectories, for supervised fine-tuning and self-training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from backtrack_mrt.config import Config
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.packed_trainer import PackedTrainer
from backtrack_mrt.training.packing import IGNORED, packed_rows
from backtrack_mrt.training.trainer_setup import Setup, shared_settings
from backtrack_mrt.types import Scored


class Example(TypedDict):
    """A trajectory to fit: its ids and the weight of every token in the loss, both (T,); 0 where there is none."""

    input_ids: list[int]
    weights: list[float]


def weighted_row(scored: Scored, learn: Sequence[bool] | None = None) -> Example:
    """A trajectory whose turns have weights. learn: which tokens after the prompt may carry loss (all)."""
    trajectory, weights = scored.trajectory, scored.token_weights()
    if learn is not None:
        weights = weights * np.array(learn)
    return Example(input_ids=list(trajectory.token_ids), weights=[0.0] * len(trajectory.prompt_ids) + weights.tolist())


def padded_rows(rows: Sequence[Example]) -> dict[str, torch.Tensor]:
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


def in_order(rows: Sequence[Example], per_update: int, epochs: int | None, seed: int) -> list[Example]:
    """The rows of all updates, one after the other: as they come, or in `epochs` passes. In a pass every update has
    rows of like length, and the updates come in an order of their own. Rows that fill no update wait for the next pass.

    Like lengths save padding, and keep long trajectories from outweighing short ones in the mean over an update's
    tokens: `star` gains more (docs/measurements.md).
    """
    lengths = [len(row["input_ids"]) for row in rows]
    updates, waiting = list[list[int]](), list[int]()
    if epochs is None:
        whole = range(len(rows))
        updates = [sorted(whole[k : k + per_update], key=lengths.__getitem__) for k in whole[::per_update]]
    for epoch in range(epochs or 0):
        generator = np.random.default_rng((seed, epoch))
        waiting += generator.permutation(len(rows)).tolist()
        full = len(waiting) - len(waiting) % per_update
        alike, waiting = sorted(waiting[:full], key=lengths.__getitem__), waiting[full:]
        updates += [alike[k * per_update : (k + 1) * per_update] for k in generator.permutation(full // per_update)]
    return [rows[i] for update in [*updates, waiting] for i in update]


def filled(rows: Sequence[Example], size: int) -> list[Example]:
    """The rows, and behind them as many without loss as make up a multiple of `size`: several processes would repeat
    rows for that."""
    filler = Example(input_ids=rows[-1]["input_ids"][:2], weights=[0.0, 0.0])
    return [*rows, *[filler] * (-len(rows) % size)]


class CrossEntropyTrainer(PackedTrainer, SFTTrainer):
    """Weighted cross-entropy: Σ_t w_t · −log π(token_t) over the number of tokens with weight.

    epochs: passes over the rows; None trains for the config's steps. title, first_step, record: see `SafeTrainer`.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        rows: Sequence[Example],
        epochs: int | None = None,
        title: str | None = None,
        **settings: Any,
    ) -> None:
        config, per_update = setup.config, setup.config.rows_per_update
        args = cross_entropy_config(config, setup.run, epochs)
        ordered = in_order(rows, per_update, epochs, config.seed)
        if processes.count() > 1:
            ordered = filled(ordered, args.per_device_train_batch_size * processes.count())
        super().__init__(
            setup,
            title=title or f"train {config.algo_label}",
            total=config.training.steps if epochs is None else math.ceil(epochs * len(rows) / per_update),
            args=args,
            train_dataset=Dataset.from_list([dict(row) for row in ordered]),
            data_collator=padded_rows,
            **settings,
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        self.note(inputs)
        weights = inputs["weights"][:, 1:]
        learnt = weights > 0
        with self.in_free_cores():
            losses = self._losses(model, inputs["input_ids"], inputs["attention_mask"], learnt)
        self.backward_in_free_cores()
        count = learnt.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * weights[learnt]).sum() / count
        if num_items_in_batch is not None:  # the tokens of all processes, over which the gradients are averaged
            loss = loss * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _losses(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:
        """−log π of the tokens that are learnt, of those behind the first (B, T − 1). The vocabulary is wide: no logits
        where there is no loss."""
        targets = ids[:, 1:]
        if not self.packs:
            kept = learnt.any(0).nonzero().flatten()
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
            return cross_entropy(logits[learnt[:, kept]].float(), targets[learnt], reduction="none")
        packed = packed_rows(ids, mask, targets.size(1), self.setup.model)
        places = packed.scored[learnt]
        if not self.fuses:
            logits = model(**packed.inputs(), use_cache=False, logits_to_keep=places).logits[0]
            return cross_entropy(logits.float(), targets[learnt], reduction="none")
        asked = torch.full_like(packed.targets, IGNORED)
        asked[places] = targets[learnt]
        found: torch.Tensor = model(**packed.inputs(), shift_labels=asked[None], fused_lm_head=True).log_probs
        return -found[0, places]


def cross_entropy_config(config: Config, run: RunDir, epochs: int | None) -> SFTConfig:
    """TRL's settings for cross-entropy on ready-made rows."""
    passes = {"max_steps": -1, "num_train_epochs": 1, "warmup_steps": 0}  # the rows of all passes are there
    return SFTConfig(
        **shared_settings(config, run) | ({} if epochs is None else passes),
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        padding_free=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
