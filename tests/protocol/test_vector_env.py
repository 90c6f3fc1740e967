"""The environment in Gymnasium's vector environments, and what it says to wrong settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import pytest

import backtrack_mrt.env
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.exact import Exact
from backtrack_mrt.rollouts.text_space import SHARED, TextSpace, _create, _read, _write

ID = "backtrack_mrt/Backtrack-v0"
VECTORS = f"""
import gymnasium, backtrack_mrt.env
if __name__ == "__main__":
    found = []
    for mode in ("sync", "async"):
        envs = gymnasium.make_vec({ID!r}, num_envs=2, vectorization_mode=mode)
        first, _ = envs.reset(seed=0)
        second, rewards, ended, _, info = envs.step(("## Step 1: 1 = 1;\\n\\\\boxed{{1}}", "no steps"))
        assert first[0].strip() and first[0] != second[0] and second[1] == "", (mode, first, second)
        found.append((first, second, rewards.tolist(), ended.tolist(), info["violation"].tolist()))
        envs.close()
    assert found[0] == found[1], found
    print("alike")
"""


def test_async_is_sync() -> None:
    """In a program of its own: its workers are forked from a process without torch."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", VECTORS], capture_output=True, text=True, timeout=240)
    assert done.stdout == "alike\n", done.stderr


def test_texts_in_shared_memory() -> None:
    space = TextSpace()
    memory = _create(space, n=2)
    texts = _read(space, memory, n=2)
    assert list(texts) == ["", ""]
    _write(space, 1, "ε = ½ \ud800", memory)
    _write(space, 1, "ε", memory)
    assert texts[0:2] == ("", "ε")
    with pytest.raises(UserError, match="does not fit"):
        _write(space, 0, "x" * (SHARED + 1), memory)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_revisions": -1}, r"backtrack\.max_revisions = -1.*greater than or equal to 0"),
        ({"token_bugdet": 1}, r"token_bugdet.*Did you mean 'token_budget'"),
        ({"token_budget": "many"}, r"token_budget = 'many'"),
        ({"problems": 3}, "in a list"),
        ({"problems": (problem for problem in ())}, "in a list"),
        ({"problems": []}, "no problem to solve"),
        ({"grade": Exact}, "not its class"),
        ({"grade": lambda answer: 1.0}, "it cannot be called"),
        ({"grade": lambda answer, problem: 1.0}, "answer in another place"),
        ({"problems": ["1 + 1"]}, "not a Problem"),
        ({"grade": 5}, "neither a grader nor a function"),
        ({"chat": 4}, "not a chat"),
        ({"prompts": "terce"}, "Did you mean 'terse'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        gymnasium.make(ID, **settings)


def test_several_mistakes_at_once() -> None:
    with pytest.raises(UserError) as told:
        backtrack_mrt.env.make("backtrack", max_revisions=-1, token_budget=0)
    assert {mistake.field for mistake in told.value.mistakes} == {"backtrack.max_revisions", "backtrack.token_budget"}
