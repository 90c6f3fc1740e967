"""Gymnasium's frozen lake as other people's TRL code plays it: an environment that is not ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from conftest import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig
from trl.chat_template_utils import qwen3_chat_template

from backtrack_mrt.types import FloatArray, Trajectory

MOVES = {"left": 0, "down": 1, "right": 2, "up": 3}
WAYS = {  # a group of four: two arrive, one drowns, one stops
    0: ["right", "right", "down", "down", "down", "right"],
    1: ["down", "down", "right", "down", "right", "right"],
    2: ["left", "right", "down"],
    3: ["up"],
}


class Lake:
    """An environment of TRL's `environment_factory`."""

    def __init__(self) -> None:
        self.lake = gymnasium.make("FrozenLake-v1", is_slippery=False)
        self.reward = 0.0

    def reset(self, **row: Any) -> str:
        self.reward = 0.0
        place, _ = self.lake.reset(seed=0)
        return f" You stand at {place}."

    def move(self, direction: str) -> str:
        """
        Walk a step.

        Args:
            direction: left, down, right or up.
        """
        place, reward, ended, _, _ = self.lake.step(MOVES[direction])
        self.reward += float(reward)
        return f"{place}{' the end' if ended else ''}"

    def get_reward(self) -> float:
        return self.reward


def walked(prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
    """A `rollout_func`: each row of a group walks its way, a step a turn."""
    encode = lambda text: trainer.processing_class(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    rows: dict[str, list[Any]] = {name: [] for name in ("prompt_ids", "completion_ids", "env_mask", "logprobs", "won")}
    for k, prompt in enumerate(prompts):
        lake, ids, mask = Lake(), [], []
        lake.reset()
        for direction in WAYS[k % len(WAYS)]:
            said, seen = [*encode(direction), trainer.processing_class.eos_token_id], encode(lake.move(direction))
            ids += said + seen
            mask += [1] * len(said) + [0] * len(seen)
        text = trainer.processing_class.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for name, value in zip(rows, (encode(text), ids, mask, None, lake.reward), strict=True):
            rows[name].append(value)
    return rows | {"logprobs": None}


def won(completions: Sequence[Any], won: Sequence[float], **_: Any) -> list[float]:
    """The reward function that goes with `walked`."""
    return list(won)


def nearness(trajectories: Sequence[Trajectory]) -> list[FloatArray]:
    """Somebody's values: the share of the way that lies behind, by the steps that were taken."""
    return [np.arange(len(t.turns) + 1) / 6 for t in trajectories]


def called(direction: str) -> str:
    """A tool call as Qwen3 writes it."""
    return f"<tool_call>\n{json.dumps({'name': 'move', 'arguments': {'direction': direction}})}\n</tool_call><|im_end|>"


class ScriptedTurns:
    """In the place of TRL's `_generate_single_turn`: row k of a group makes its way's calls, then says where it is. The
    first call tells which way it is."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer

    def __call__(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        replies = []
        for k, ids in enumerate(prompt_ids):
            text = self.tokenizer.decode(ids)
            done = [m for m in re.findall(r'"direction": "(\w+)"', text) if m in MOVES]
            way = next((way for way in WAYS.values() if way[:1] == done[:1]), WAYS[k % 4])
            said = called(way[len(done)]) if len(done) < len(way) else "I am at \\boxed{15}.<|im_end|>"
            replies.append(self.tokenizer(said, add_special_tokens=False)["input_ids"])
        return replies, None


def small_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random model with Qwen3's chat template, and a token per byte."""
    special = ("<bos>", "<|im_end|>", "<|im_start|>", "<tool_call>", "</tool_call>", "<think>", "</think>")
    tokenizer = byte_tokenizer(qwen3_chat_template, special)
    tokenizer.pad_token = "<bos>"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config), tokenizer


def settings(folder: Any, **changed: Any) -> GRPOConfig:
    return GRPOConfig(
        str(folder),
        **{
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_steps": 1,
            "max_completion_length": 2048,
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "gradient_checkpointing": False,
            "learning_rate": 1e-3,
            "scale_rewards": "none",
            **changed,
        },
    )
