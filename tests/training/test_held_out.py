"""Evaluations while training."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.short_runs import metrics, request, weights

from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.train import train


@pytest.mark.parametrize(
    ("algo", "every", "flags"),
    [("mrt-rl", 2, ()), ("star", 8, ("--training.problems_per_step", "8", "--training.epochs", "2"))],
)
def test_they_say_how_far_it_is_and_change_nothing(
    tmp_path: Path, algo: str, every: int, flags: tuple[str, ...]
) -> None:
    train(request(tmp_path / "without", *flags, algo=algo))
    train(request(tmp_path / "with", *flags, "--evaluation.every", str(every), algo=algo))
    ours, theirs = weights(tmp_path / "without"), weights(tmp_path / "with")
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert metrics(tmp_path / "without") == metrics(tmp_path / "with")
    run = RunDir(tmp_path / "with")
    found = [(line["step"], line["name"]) for line in run.evaluations()]
    last = run.metrics()[-1]["step"]
    assert found == [(0, "base"), *((k, f"step_{k:06d}") for k in range(every, last, every)), (last, "trained")]
    assert len(found) >= 3
    assert all(line["accuracy"]["n"] == 24 for line in run.evaluations())
    assert (run.trajectories / f"evaluation_step_{every:06d}.jsonl").exists()
    page = (run.path / "report.html").read_text()
    assert "figure-held_out_accuracy" in page
    assert "figure-held_out_accuracy" not in (tmp_path / "without" / "report.html").read_text()
