"""Which rows make a micro-batch: those with the same prompt, or those of like length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]  # TRL's: tensors of n rows under their names, and numbers


def by_prompt(rows: Batch) -> Tensor:
    """The order of the rows in which those with the same prompt come one after the other."""
    prompts = [tuple(ids) for ids in rows["prompt_ids"].tolist()]  # padded on the left to one length
    first = {prompt: place for place, prompt in reversed(list(enumerate(prompts)))}
    return torch.tensor([first[prompt] for prompt in prompts]).argsort(stable=True)


def by_length(rows: Batch) -> Tensor:
    """The order of the rows from short to long. Multi-turn trajectories differ much in length (solved at once, or
    never); padded to the longest, most of the update would be spent on padding."""
    lengths: Tensor = rows["prompt_mask"].sum(1) + rows["completion_mask"].sum(1)
    return lengths.argsort().cpu()  # where the rows' numbers are


def regrouped(batches: list[Batch], per_update: int, alike: Callable[[Batch], Tensor]) -> list[Batch]:
    """The micro-batches of each update with its rows in the order `alike`, and padding cut off. The sum of the update's
    gradients does not depend on which row is in which micro-batch."""
    found = []
    for start in range(0, len(batches), per_update):
        update = batches[start : start + per_update]
        rows = {
            name: torch.cat([batch[name] for batch in update]) if update[0][name].dim() else update[0][name]
            for name in update[0]
        }
        for chunk in torch.split(alike(rows), len(update[0]["prompt_ids"])):
            batch = {name: rows[name][chunk] if rows[name].dim() else rows[name] for name in rows}
            prompt, completion = (int(batch[f"{side}_mask"].sum(1).max()) for side in ("prompt", "completion"))
            for name, tensor in batch.items():  # prompts are padded on the left, completions on the right
                if name.startswith("prompt_"):
                    batch[name] = tensor[:, tensor.size(1) - prompt :]
                elif tensor.dim() == 2:
                    batch[name] = tensor[:, :completion]
            found.append(batch)
    return found
