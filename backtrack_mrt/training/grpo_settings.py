"""TRL's GRPO as reinforcement learning here uses it: its settings, and what it must be given or told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import trl.trainer.utils as trl_utils
from trl.trainer.grpo_config import GRPOConfig

from backtrack_mrt.config import Config
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.trainer_setup import shared_settings


def outcome_reward(completions: Sequence[Any], outcome: Sequence[float], **_: Any) -> list[float]:
    """TRL's mandatory reward function: the outcome R, which it logs as `reward`."""
    return list(outcome)


def grpo_repeats(config: Config) -> int:
    """Rows that TRL makes of each of its prompts. It has no groups of one: two problems take the place of a pair."""
    return max(config.training.group_size, 2)


def grpo_config(config: Config, run: RunDir) -> GRPOConfig:
    """TRL's settings for reinforcement learning."""
    training = config.training
    return GRPOConfig(
        **shared_settings(config, run),
        num_generations=grpo_repeats(config),
        temperature=training.temperature,
        loss_type=training.loss,
        epsilon=training.clip,
        beta=training.kl,
        scale_rewards="none",
        shuffle_dataset=False,  # the problems come in the order of training: a resumed run needs no sampler state
        max_completion_length=None,
    )


def prepare_trl() -> None:
    """`rollout_func` is marked experimental; the version is pinned. TRL's LM head scores the completions' positions
    alone where it has Triton, elsewhere the prompts' and the padding as well, for devices that compile one kernel per
    shape. A CPU does not: there it is a third of a SmolLM2 update."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    trl_utils._use_triton = lambda device: device.type in ("cpu", "cuda")  # type: ignore[attr-defined]
