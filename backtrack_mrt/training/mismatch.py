"""What samples is not quite what is trained: the correction for another engine's logprobs.

TRL has the same one (`token_truncate`), but only for its own vLLM, and by a forward pass of its own. Here the pass that
the loss makes has the trainer's logprobs already, unless a batch has several updates (`training.epochs`).
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Mismatch:
    """Measures it in an update, micro-batch by micro-batch. cap: the largest importance weight; corrects: whether the
    weights are corrected by it."""

    def __init__(self, cap: float, *, corrects: bool) -> None:
        self._cap, self._corrects = cap, corrects
        self._gaps: list[Tensor] = []
        self._ratios: list[Tensor] = []

    @torch.no_grad()
    def correct(self, batch: dict[str, Any], trainer_BT: Tensor) -> None:
        """Multiply the batch's weights by the importance of its tokens, whose logprobs by the policy that drew them
        are `trainer_BT` (B, T), if it corrects."""
        engine_BT = batch["sampling_per_token_logps"]
        sampled_BT = (batch["completion_mask"] * batch["tool_mask"]).bool()
        ratio_BT = truncated_importance(trainer_BT, engine_BT, sampled_BT, self._cap)
        if self._corrects:
            batch["advantages"] = batch["advantages"] * ratio_BT
        self._gaps.append((trainer_BT - engine_BT)[sampled_BT].abs())
        self._ratios.append(ratio_BT[sampled_BT])

    def told(self, accelerator: Accelerator) -> dict[str, float]:
        """How large it was in the update that ends now, in all processes, under TRL's names."""
        logged = {
            "sampling_logp_difference": (self._gaps, ("mean", "max")),
            "importance_sampling_ratio": (self._ratios, ("min", "mean", "max")),
        }
        told = dict[str, float]()
        for name, (parts, statistics) in logged.items():
            values = accelerator.pad_across_processes(torch.cat(parts), pad_index=torch.nan)
            values = accelerator.gather(values)
            values = values[~values.isnan()]
            if not len(values):  # an engine without logprobs
                continue
            told |= {f"sampling/{name}/{each}": float(getattr(values, each)()) for each in statistics}
        self._gaps, self._ratios = [], []
        return told


def truncated_importance(trainer_BT: Tensor, engine_BT: Tensor, sampled_BT: Tensor, cap: float) -> Tensor:
    """Weight min(π_trainer / π_engine, cap) of every sampled token from the logprobs of both, shape (B, T); 1 on the
    others and where the engine gave no number. One weight per token (TIS): a product over a long trajectory would be
    all noise."""
    gap_BT = torch.where(sampled_BT.bool(), trainer_BT - engine_BT, 0.0).nan_to_num(nan=0.0)
    return gap_BT.exp().clamp(max=cap)
