"""The embedded default, made short, and what of two runs must be equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import RunRequest
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.types import Scored

SHORT = [
    *("--training.steps", "4", "--training.problems_per_step", "4", "--training.group_size", "4"),
    *("--training.micro_batch_size", "8", "--data.eval_size", "24", "--data.train_size", "40"),
]


def request(folder: Path, *flags: str, algo: str = "mrt-rl") -> RunRequest:
    return read_request(["--algo", algo, "--output-dir", str(folder), *SHORT, *flags])


def metrics(run: Path) -> list[dict[str, Any]]:
    """The log without what the clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "time" not in name} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    (file,) = (run / "model").glob("*.safetensors")
    return dict(load_file(file))


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: metrics, held-out results, sampled ids and log-probabilities of every step, tokens spent, trained
    weights."""
    assert metrics(one) == metrics(other)
    assert RunDir(one).evaluations() == RunDir(other).evaluations()
    for path in one.glob("trajectories/*.jsonl"):
        assert path.read_text() == (other / "trajectories" / path.name).read_text()
    tokens = [json.loads((run / "summary.json").read_text())["tokens"] for run in (one, other)]
    assert tokens[0] == tokens[1]
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def read_step(run: RunDir, step: int) -> list[Scored]:
    """The rollouts of a step."""
    return read_trajectories(run.trajectories / f"step_{step:06d}.jsonl")
