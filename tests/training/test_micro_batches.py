"""Rows of like length, or of one prompt, share a micro-batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from backtrack_mrt.training.micro_batches import Batch, by_length, by_prompt, regrouped


@pytest.mark.parametrize("alike", [by_length, by_prompt])
def test_regrouping_keeps_every_row_and_cuts_padding_only(alike: Callable[[Batch], torch.Tensor]) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 12, 8)
    mask = torch.tensor([[int(t < n) for t in range(12)] for n in lengths])
    rows = {
        "prompt_ids": torch.arange(8)[:, None].expand(8, 5) + 1,
        "prompt_mask": torch.tensor([[0] * (5 - k) + [1] * k for k in (1, 5, 2, 3, 5, 4, 1, 2)]),
        "completion_ids": mask * torch.arange(1, 9)[:, None],
        "completion_mask": mask,
        "advantages": mask.float(),
        "num_items_in_batch": torch.tensor(int(mask.sum())),
    }
    batches = [{k: v[i : i + 2] if v.dim() else v for k, v in rows.items()} for i in range(0, 8, 2)]
    found = regrouped(batches, 4, alike)
    assert [len(b["prompt_ids"]) for b in found] == [2, 2, 2, 2]
    assert sorted(int(row) for b in found for row in b["prompt_ids"][:, -1]) == list(range(1, 9))
    assert sum(int(b["completion_mask"].sum()) for b in found) == int(lengths.sum())
    for batch in found:
        assert batch["completion_mask"].sum(1).max() == batch["completion_ids"].size(1) == batch["advantages"].size(1)
        assert batch["prompt_mask"].sum(1).max() == batch["prompt_ids"].size(1)


def test_rows_of_one_prompt_come_one_after_the_other() -> None:
    assert by_prompt({"prompt_ids": torch.tensor([[7], [6], [7], [8], [6]])}).tolist() == [0, 2, 1, 4, 3]
