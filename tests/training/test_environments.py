"""What goes wrong in other people's environments and rollouts under TRL is told, with its place."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.lake import Lake, ScriptedTurns, nearness, settings, small_model, walked, won

import backtrack_mrt as bt
from backtrack_mrt.errors import UserError
from backtrack_mrt.training import environments

pytestmark = pytest.mark.usefixtures("no_reports")

ROWS = Dataset.from_list([{"prompt": [{"role": "user", "content": "Cross the lake."}], "answer": "15"}])
HERE = r"See .*test_environments.py, line \d+\.$"


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the ice broke")


def gone(*_: Any, **__: Any) -> Any:
    raise SystemExit("no lake")


async def later(self: Any, **row: Any) -> str:
    return ""


def lake(**methods: Any) -> type[Lake]:
    return type("Own", (Lake,), methods)


def played(folder: Path, factory: Any) -> Any:
    """A batch of episodes."""
    model, tokenizer = small_model()
    trainer = bt.MRTTrainer(
        model, None, settings(folder), ROWS, processing_class=tokenizer, environment_factory=factory
    )
    trainer._generate_single_turn = ScriptedTurns(tokenizer)  # type: ignore[method-assign]
    trainer.model.train()
    return trainer._generate_and_score_completions([dict(ROWS[0]) for _ in range(4)])["advantages"]


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (
            lake(__init__=broken),
            "_factory = 'Own': its __init__ raised RuntimeError: the ice broke. " + HERE,
        ),
        (lake(reset=broken), "its reset raised RuntimeError: the ice broke. " + HERE),
        (lake(reset=gone), "its reset raised SystemExit: no lake. " + HERE),
        (lake(get_reward=broken), "its get_reward raised RuntimeError: the ice broke. " + HERE),
        (lake(reset=lambda self, **row: 7), "its reset gave 7. Return what the model sees first"),
        (lake(reset=lambda self: ""), r"reset cannot be called.*Write def reset\(self, \*\*row\)"),
        (lake(reset=lambda self, prompt: ""), r"unexpected keyword argument 'answer'. It is given the columns"),
        (lake(reset=later), "its reset is asynchronous, and nobody awaits it"),
        (lake(get_reward=lambda self: "1"), "its get_reward gave '1'. Return a finite number"),
        (lake(get_reward=lambda self: [1.0]), r"its get_reward gave \[1.0\]"),
        (lake(get_reward=lambda self: float("inf")), "its get_reward gave inf"),
        (Lake(), "an environment, and not what makes one. Pass its class"),
        ({"lake": Lake()}, "an environment, and not what makes one"),
    ],
)
def test_an_environment_that_fails(tmp_path: Path, factory: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        played(tmp_path, factory)


def step(raising: Callable[..., Any]) -> Callable[..., str]:
    def move(self, direction: str) -> str:  # type: ignore[no-untyped-def]
        """
        Walk a step.

        Args:
            direction: left, down, right or up.
        """
        return str(raising())

    return move


@pytest.mark.parametrize(("raising", "name"), [(broken, "RuntimeError: the ice broke"), (gone, "SystemExit: no lake")])
def test_a_tool_that_fails_is_told_once_and_the_episodes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any], name: str
) -> None:
    monkeypatch.setattr(environments, "_TOLD", set())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        played(tmp_path, lake(move=step(raising)))
    told = [str(warning.message) for warning in seen if "Own's move" in str(warning.message)]
    assert len(told) == 1
    assert f"raised {name}; the model is told, and the episode goes on. See " in told[0]


@pytest.mark.parametrize("reward", [None, float("nan"), True, np.float32(0.5), 2])
def test_rewards_that_trl_takes(tmp_path: Path, reward: Any) -> None:
    assert played(tmp_path, lake(get_reward=lambda self: reward)).shape[0] == 4


def without(name: str) -> Callable[..., Any]:
    return lambda prompts, trainer: {key: rows for key, rows in walked(prompts, trainer).items() if key != name}


def masked(change: Callable[[list[int]], list[int]]) -> Callable[..., Any]:
    def rollouts(prompts: Any, trainer: Any) -> Any:
        given = walked(prompts, trainer)
        return given | {"env_mask": [change(mask) for mask in given["env_mask"]]}

    return rollouts


def rolled_out(folder: Path, rollout_func: Any) -> Any:
    model, tokenizer = small_model()
    trainer = bt.MRTTrainer(
        model, won, settings(folder), ROWS, processing_class=tokenizer, rollout_func=rollout_func, values=nearness
    )
    trainer.model.train()
    trainer._generate_and_score_completions([dict(ROWS[0]) for _ in range(4)])
    return trainer.latest_trajectories


@pytest.mark.parametrize(
    ("rollout_func", "told"),
    [
        (lambda prompts, trainer: None, "it gave None. Return prompt_ids"),
        (lambda prompts: None, r"cannot be called: .*Write def rollout\(prompts, trainer\)"),
        (without("completion_ids"), r"it gave \['env_mask', 'logprobs', 'prompt_ids', 'won'\]"),
        (masked(lambda mask: mask[:-1]), r"row 0 has \d+ tokens and a mask of \d+"),
        (masked(lambda mask: [0] * len(mask)), "row 0 has no sampled token"),
    ],
)
def test_rollouts_that_are_none(tmp_path: Path, rollout_func: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        rolled_out(tmp_path, rollout_func)


def test_rollouts_without_a_mask_are_one_turn_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_TOLD", set())
    with pytest.warns(UserWarning, match="there is no env_mask: all tokens count as sampled"):
        scored = rolled_out(tmp_path, without("env_mask"))
    assert {len(trajectory.turns) for trajectory in scored} == {1}
