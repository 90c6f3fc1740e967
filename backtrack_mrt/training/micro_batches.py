"""Which rows make a micro-batch: those of like length."""

from __future__ import annotations

from typing import Any

import torch


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
