"""Batches that teach nothing, through whole runs: empty replies, no room for a reply, the same reward for everyone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import backtrack_mrt.training.train as train_module
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.errors import Collapsed
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Completion, Finish, Request, Sampling

pytestmark = pytest.mark.slow  # sixteen short runs
SHORT = [
    *("--training.steps", "2", "--training.problems_per_step", "2", "--training.group_size", "2"),
    *("--training.micro_batch_size", "2", "--data.eval_size", "2", "--data.train_size", "8"),
    *("--training.weight_decay", "0"),
]
ALGORITHMS = [
    ("mrt-rl", []),
    ("mrt-rl", ["--algorithm.credit", "return_to_go"]),
    ("mrt-rl", ["--algorithm.credit", "prefix"]),
    ("grpo", ["--algorithm.scale_outcome", "true"]),
    ("length-penalty", ["--algorithm.scale_outcome", "true"]),
    ("star", ["--algorithm.rationalize", "true"]),
    ("mrt-star", []),
    ("rise", []),
]


def empty_replies(parts: Assembly) -> None:
    """Every reply is nothing but the token that ends it."""
    ends = parts.dialogue.chat.eos_id

    def generate(requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [Completion((ends,), (-1.0,), Finish.STOP) for _ in requests]

    parts.engine.generate = generate  # type: ignore[method-assign]


def no_room(parts: Assembly) -> None:
    """The prompt fills the model's context: there are no turns."""
    parts.engine.context_length = 8


@pytest.mark.parametrize("spoil", [empty_replies, no_room])
@pytest.mark.parametrize(("algo", "flags"), ALGORITHMS, ids=["-".join([a, *flags[1:]]) for a, flags in ALGORITHMS])
def test_nothing_is_learnt_and_nothing_breaks(
    algo: str, flags: list[str], spoil: Callable[[Assembly], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(config: Config, *, training: bool) -> Assembly:
        parts = assemble(config, training=training)
        spoil(parts)
        return parts

    monkeypatch.setattr(train_module, "assemble", spoiled)
    monkeypatch.setattr(train_module, "_that_fit", lambda problems, parts: problems)  # or they would all be left out
    request = read_request(["--algo", algo, "--output-dir", str(tmp_path / "run"), *SHORT, *flags])
    if algo in ("star", "mrt-star", "rise"):
        with pytest.raises(Collapsed, match="kept none of its"):
            train(request)
    else:
        train(request)
    rows = RunDir(tmp_path / "run").metrics()
    assert rows
    for row in rows:
        # Where no trajectory has an answer, RISE has no trajectories.
        assert algo == "rise" or (row["outcome"], row["grader/unparsable"]) == (0.0, 1.0)
        assert all(math.isfinite(value) for name, value in row.items() if value is not None), row
        # Equal outcomes give no advantage; progress from V_0 to the 0 after a violation is one.
        assert row.get("grad_norm", 0.0) == 0.0 or (algo, spoil) == ("mrt-rl", empty_replies)
