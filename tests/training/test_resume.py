"""A run that is interrupted anywhere and resumed is, bit for bit, the run that was not interrupted."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.short_runs import assert_same_run, request

from backtrack_mrt.errors import Interrupted, UserError
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.runs.checkpoints import Checkpoints
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.runs.seconds import earlier_seconds
from backtrack_mrt.training.held_out import HeldOut
from backtrack_mrt.training.safety import SafeTrainer
from backtrack_mrt.training.train import train

pytestmark = pytest.mark.usefixtures("no_reports")

# Passes over 10 problems, 4 per step, end within the third step, with the fifth, within the eighth, …
TWELVE = (
    *("--training.steps", "12", "--training.save_every", "1", "--training.keep_checkpoints", "99"),
    *("--data.train_size", "10", "--data.eval_size", "2", "--evaluation.every", "5"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "flags"),
    [
        ("mrt-rl", ()),
        ("mrt-rl", ("--algorithm.credit", "gae", "--training.group_size", "1", "--training.micro_batch_size", "4")),
        ("mrt-rl", ("--algorithm.credit", "gae", "--training.epochs", "2")),
        ("grpo", ()),
        ("star", ("--training.steps", "3", "--algorithm.iterations", "2", "--training.epochs", "2")),
    ],
)
def test_resume_after_every_step(tmp_path: Path, algo: str, flags: tuple[str, ...]) -> None:
    train(request(tmp_path / "whole", *TWELVE, *flags, algo=algo))
    saved = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    assert len(saved) >= 12
    for last in saved[:-1]:
        cut = tmp_path / f"cut_{last.name}"
        shutil.copytree(tmp_path / "whole", cut)
        for later in (path for path in (cut / "checkpoints").iterdir() if path.name > last.name):
            shutil.rmtree(later)
        train(request(cut, *TWELVE, *flags, "--resume", algo=algo))
        assert_same_run(tmp_path / "whole", cut)


def test_a_run_killed_behind_its_last_update_does_no_other(tmp_path: Path) -> None:
    """Nor where a budget of tokens ends it: that it is used up is not in the checkpoint."""
    flags = ("--training.sampled_tokens", "1200", "--data.eval_size", "2", "--prover.calibration", "0")
    train(request(tmp_path / "whole", *flags, algo="grpo"))
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    (cut / "summary.json").unlink()
    shutil.rmtree(cut / "model")
    train(request(cut, *flags, "--resume", algo="grpo"))
    assert_same_run(tmp_path / "whole", cut)


def test_a_run_goes_on_to_a_longer_budget_of_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a constant rate it is the run that had this budget from the beginning; its progress is told of the whole."""
    flags = ("--data.eval_size", "2", "--training.lr_schedule", "constant", "--training.sampled_tokens")
    train(request(tmp_path / "whole", *flags, "6000", algo="grpo"))
    train(request(tmp_path / "longer", *flags, "3000", algo="grpo"))
    capsys.readouterr()
    train(request(tmp_path / "longer", *flags, "6000", "--resume", "--accept-changes", algo="grpo"))
    assert_same_run(tmp_path / "whole", tmp_path / "longer")
    spent = sum(row["tokens/step_sampled"] for row in RunDir(tmp_path / "longer").metrics())
    assert f"train grpo {spent:,.0f}/6,000 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("algo", "flags", "whole", "resumed"),
    [("grpo", (), [0], [2]), ("star", ("--env", "retry", "--algorithm.iterations", "2"), [0, 0], [1, 0])],
)
def test_the_time_left_is_told_of_what_this_training_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algo: str,
    flags: tuple[str, ...],
    whole: list[int],
    resumed: list[int],
) -> None:
    """So each iteration of self-training begins at 0, whatever the run logged before."""
    begun = list[int]()

    @contextmanager
    def noted(*_: Any, done: int, **settings: Any) -> Iterator[Any]:
        begun.append(done)
        with progress(1, "train") as bar:
            yield bar

    monkeypatch.setattr("backtrack_mrt.training.safety.progress", noted)
    flags = ("--data.eval_size", "2", "--training.save_every", "1", "--training.keep_checkpoints", "99", *flags)
    train(request(tmp_path, *flags, algo=algo))
    assert begun == whole
    for later in sorted(RunDir(tmp_path).checkpoints.iterdir())[resumed[0] :]:
        shutil.rmtree(later)
    begun.clear()
    train(request(tmp_path, *flags, "--resume", algo=algo))
    assert begun == resumed


def signal_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, number: signal.Signals) -> None:
    """Send this process the signal at the given call of a method."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return method(*args, **settings)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("algo", "flags", "owner", "name", "call", "number", "code"),
    [
        ("mrt-rl", (), HFEngine, "generate", 6, signal.SIGTERM, 75),  # while the base is evaluated
        ("mrt-rl", (), HFEngine, "generate", 24, signal.SIGINT, 130),  # in a rollout
        ("mrt-rl", (), SafeTrainer, "training_step", 4, signal.SIGTERM, 75),  # between two micro-batches
        ("grpo", ("--model.full_finetuning", "true"), SafeTrainer, "training_step", 5, signal.SIGINT, 130),
        ("grpo", ("--training.epochs", "2"), SafeTrainer, "training_step", 7, signal.SIGTERM, 75),  # a second
        ("mrt-rl", ("--evaluation.every", "3"), HeldOut, "between_steps", 3, signal.SIGTERM, 75),
        ("mrt-rl", (), Checkpoints, "save", 1, signal.SIGTERM, 75),
        ("star", ("--env", "retry"), HFEngine, "generate", 9, signal.SIGTERM, 75),  # while it collects
        ("rise", ("--env", "retry"), SafeTrainer, "training_step", 5, signal.SIGTERM, 75),  # while it fits
        ("sft", (), SafeTrainer, "training_step", 4, signal.SIGINT, 130),
    ],
)
def test_a_signal_loses_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algo: str,
    flags: tuple[str, ...],
    owner: type,
    name: str,
    call: int,
    number: signal.Signals,
    code: int,
) -> None:
    flags = ("--training.save_every", "2", "--data.eval_size", "4", *flags)
    train(request(tmp_path / "whole", *flags, algo=algo))
    with monkeypatch.context() as patched:
        signal_at(patched, owner, name, call, number)
        with pytest.raises(Interrupted) as stop:
            train(request(tmp_path / "cut", *flags, algo=algo))
    assert stop.value.code == code
    run = RunDir(tmp_path / "cut")
    if name in ("training_step", "between_steps"):  # every whole step was saved, not only every second one
        assert run.metrics()[-1]["step"] == max(int(path.name[-6:]) for path in run.checkpoints.iterdir())
    first_sitting = earlier_seconds(run.path)
    train(request(tmp_path / "cut", *flags, "--resume", algo=algo))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    taken = read_run(run.path).summary["seconds"]
    assert first_sitting
    assert all(taken[part] > seconds for part, seconds in first_sitting.items())


def test_a_changed_config_is_refused_unless_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--training.save_every", "2", "--data.eval_size", "4")
    train(request(tmp_path, *flags))
    longer = (*flags, "--training.steps", "6", "--resume")
    with pytest.raises(UserError, match=r"training.steps: 4 → 6.*--accept-changes"):
        train(request(tmp_path, *longer))
    train(request(tmp_path, *longer, "--accept-changes"))
    assert "training.steps: 4 → 6" in capsys.readouterr().out
    assert [row["step"] for row in RunDir(tmp_path).metrics()] == [1, 2, 3, 4, 5, 6]
    train(request(tmp_path, *longer))  # the new config is the run's now
