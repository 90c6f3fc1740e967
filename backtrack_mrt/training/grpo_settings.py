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
from backtrack_mrt.types import Trajectory


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
        num_iterations=config.updates_per_step,
        temperature=training.temperature,
        loss_type=training.loss,
        epsilon=training.clip,
        scale_rewards="none",
        shuffle_dataset=False,  # the problems come in the order of training: a resumed run needs no sampler state
        max_completion_length=None,
    )


def trl_rows(trajectories: Sequence[Trajectory], filler: int) -> dict[str, Any]:
    """What TRL's `rollout_func` returns. filler: a token for rows without any; it is masked."""
    return {
        "prompt_ids": [list(t.prompt_ids) for t in trajectories],
        "completion_ids": [list(t.token_ids[len(t.prompt_ids) :]) or [filler] for t in trajectories],
        "env_mask": [[int(j >= 0) for j in t.turn_index()] or [0] for t in trajectories],
        "logprobs": [_sampled_logprobs(t) or [0.0] for t in trajectories],
        "outcome": [t.outcome for t in trajectories],
    }


def _sampled_logprobs(trajectory: Trajectory) -> list[float]:
    """The engine's logprob of every token after the prompt, 0 on the environment's."""
    logprobs: list[float] = []
    for turn in trajectory.turns:
        logprobs += [0.0] * len(turn.instruction_ids)
        logprobs += turn.completion.logprobs
    return logprobs


def prepare_trl() -> None:
    """`rollout_func` is marked experimental; the version is pinned. TRL's LM head scores the completions' positions
    alone where it has Triton, elsewhere the prompts' and the padding as well, for devices that compile one kernel per
    shape. A CPU does not: there it is a third of a SmolLM2 update."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    trl_utils._use_triton = lambda device: device.type in ("cpu", "cuda")  # type: ignore[attr-defined]
