"""An engine that is not the trained module computes other logprobs: what the update is told of them, and how it is
corrected."""

from __future__ import annotations

import torch

from backtrack_mrt.types import Trajectory


def sampled_logprobs(trajectory: Trajectory) -> list[float]:
    """The engine's logprob of every token after the prompt, 0 on the environment's."""
    logprobs: list[float] = []
    for turn in trajectory.turns:
        logprobs += [0.0] * len(turn.instruction_ids)
        logprobs += turn.completion.logprobs
    return logprobs


def truncated_importance(
    trainer_BT: torch.Tensor, engine_BT: torch.Tensor, sampled_BT: torch.Tensor, cap: float
) -> torch.Tensor:
    """Weight min(π_trainer / π_engine, cap) of every sampled token from the logprobs of both, shape (B, T); 1 on the
    others and where the engine gave no number. One weight per token (TIS): a product over a long trajectory would be
    all noise."""
    gap_BT = torch.where(sampled_BT.bool(), trainer_BT - engine_BT, 0.0).nan_to_num(nan=0.0)
    return gap_BT.exp().clamp(max=cap)
