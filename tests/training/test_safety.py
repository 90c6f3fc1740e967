"""Numbers that are not finite, memory, empty completions: a step is skipped or the run ends; nothing is spoilt."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.short_runs import request

from backtrack_mrt.errors import RunError
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.rollouts.prover import LikelihoodProver
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training import safety
from backtrack_mrt.training.rl import PolicyTrainer
from backtrack_mrt.training.supervised import CrossEntropyTrainer
from backtrack_mrt.training.train import train

pytestmark = pytest.mark.usefixtures("no_reports")

FLAGS = ("--data.eval_size", "2", "--training.save_every", "1", "--training.keep_checkpoints", "9")


def at_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, calls: set[int], change: Any) -> None:
    """Change what a method returns at the given calls."""
    method, count = getattr(owner, name), 0

    def changed(*args: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        result = method(*args, **settings)
        return change(result) if count in calls else result

    monkeypatch.setattr(owner, name, changed)


def trained(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path / "adapter_model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_skipped(run: RunDir, step: int, reason: str) -> None:
    rows = {row["step"]: row for row in run.metrics()}
    assert [rows[s]["skipped"] for s in sorted(rows)] == [float(s == step) for s in sorted(rows)]
    assert rows[step]["loss"] is None  # not 0.0
    assert all(math.isfinite(row["loss"]) for s, row in rows.items() if s != step)
    before, after = (trained(run.checkpoints / f"step_{s:06d}") for s in (step - 1, step))
    assert all(torch.equal(before[name], after[name]) for name in before)
    with safe_open(run.skipped / f"step_{step:06d}.safetensors", "pt") as file:
        assert reason in file.metadata()["reason"]
        assert any(name.endswith("_ids") for name in file.keys())  # noqa: SIM118
    assert all(bool(tensor.isfinite().all()) for tensor in trained(run.model).values())


def test_a_loss_that_is_not_finite_skips_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_calls(monkeypatch, PolicyTrainer, "_compute_loss", {4}, lambda loss: loss * math.nan)  # step 2, micro-batch 2
    train(request(tmp_path, *FLAGS))
    assert_skipped(RunDir(tmp_path), 2, "loss or a gradient")


def test_a_step_of_which_an_update_is_left_out_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_calls(monkeypatch, PolicyTrainer, "_compute_loss", {6}, lambda loss: loss * math.nan)  # step 2, first update
    train(request(tmp_path, *FLAGS, "--training.epochs", "2"))
    run = RunDir(tmp_path)
    assert [(row["skipped"], row["loss"] is None) for row in run.metrics()][:3] == [(0, False), (1, True), (0, False)]
    before, after = (trained(run.checkpoints / f"step_{s:06d}") for s in (1, 2))
    assert any(not torch.equal(before[name], after[name]) for name in before)  # by the other update
    assert (run.skipped / "step_000002.safetensors").exists()


def test_a_gradient_that_is_not_finite_skips_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(loss: torch.Tensor) -> torch.Tensor:
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    at_calls(monkeypatch, CrossEntropyTrainer, "compute_loss", {3}, spoilt)
    train(request(tmp_path, *FLAGS, algo="sft"))
    assert_skipped(RunDir(tmp_path), 3, "loss or a gradient")


def test_values_that_are_not_finite_skip_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = 1  # the base's evaluation asks for values as well
    at_calls(
        monkeypatch,
        LikelihoodProver,
        "values",
        {evaluated + 2},
        lambda values: [np.full_like(rows, np.nan) for rows in values],
    )
    train(request(tmp_path, *FLAGS))
    assert_skipped(RunDir(tmp_path), 2, "advantages is not finite")


def test_three_skipped_steps_in_a_row_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_calls(monkeypatch, PolicyTrainer, "_compute_loss", {1, 3, 5}, lambda loss: loss * math.nan)
    with pytest.raises(RunError, match=r"3 steps in a row .*step 3\. Their batches are in"):
        train(request(tmp_path, *FLAGS))
    run = RunDir(tmp_path)
    assert len(list(run.skipped.iterdir())) == 3
    assert all(bool(t.isfinite().all()) for path in run.checkpoints.iterdir() for t in trained(path).values())


def test_batches_of_skipped_steps_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "KEPT_BATCHES", 2)
    at_calls(monkeypatch, PolicyTrainer, "_compute_loss", {1, 5, 7}, lambda loss: loss * math.nan)
    train(request(tmp_path, *FLAGS))
    assert [path.stem for path in sorted(RunDir(tmp_path).skipped.iterdir())] == ["step_000003", "step_000004"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step

    def overflow(self: Any, *args: Any, **settings: Any) -> Any:
        result = step(self, *args, **settings)
        self.param_groups[0]["params"][0].data.fill_(math.inf)
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(RunError, match="weights after step 1 are not finite"):
        train(request(tmp_path, *FLAGS))
    assert not list(RunDir(tmp_path).checkpoints.glob("step_*"))


@pytest.mark.parametrize(
    ("owner", "name", "call", "told"),
    [
        (PolicyTrainer, "_compute_loss", 4, r"updating on 8 rows of \d+ tokens .*training.micro_batch_size"),
        (HFEngine, "generate", 30, r"sampling 16 trajectories and their values .*engine.max_rows"),
    ],
)
def test_out_of_memory_names_shapes_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, told: str
) -> None:
    at_calls(monkeypatch, owner, name, {call}, lambda result: torch.empty(1 << 60))
    with pytest.raises(RunError, match=told) as error:
        train(request(tmp_path, *FLAGS))
    assert "--resume --accept-changes" in error.value.remedy
    monkeypatch.undo()
    smaller = ("--training.micro_batch_size", "4", "--resume", "--accept-changes")
    train(request(tmp_path, *FLAGS, *smaller))
    assert [row["step"] for row in RunDir(tmp_path).metrics()] == [1, 2, 3, 4]


def test_equal_rewards_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that is right throughout, or wrong throughout, teaches GRPO nothing: a zero loss, and no skipped step."""
    flags = (*FLAGS, "--training.weight_decay", "0")
    train(request(tmp_path, *flags, "--training.temperature", "0.001", algo="grpo"))
    run = RunDir(tmp_path)
    rows = run.metrics()
    same = [row["step"] for row in rows if row["frac_reward_zero_std"] == 1.0]
    assert same  # nearly greedy: the members of a group are alike
    assert all(
        row["loss"] == 0.0 and row["grad_norm"] == 0.0 and row["skipped"] == 0.0 for row in rows if row["step"] in same
    )


def test_the_checkpoint_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    train(request(tmp_path, *FLAGS))
    sizes = [len((tmp_path / "checkpoints" / f"step_{step:06d}" / "trainer_state.json").read_text()) for step in (1, 4)]
    assert abs(sizes[0] - sizes[1]) < 20
    assert (
        json.loads((tmp_path / "checkpoints" / "step_000004" / "trainer_state.json").read_text())["log_history"] == []
    )
