"""Checkpoints are whole or not there: damage is found and named, and the one before is taken."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from support.short_runs import assert_same_run, request

from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.runs import durable
from backtrack_mrt.runs.checkpoints import Checkpoints
from backtrack_mrt.training.train import train

pytestmark = pytest.mark.usefixtures("no_reports")

FILES = {"adapter_model.safetensors": b"weights", "optimizer.pt": b"moments", "rng_state.pth": b"random"}


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    kept = Checkpoints(tmp_path, keep=2)
    for step in (2, 4, 6):
        kept.save(step, fill, {"step": step}, needed=100)
    return kept


def test_the_newest_stay(checkpoints: Checkpoints) -> None:
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.step, newest.record["step"]) == (6, 6)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step_000004", "step_000006"]


@pytest.mark.parametrize("name", [*FILES, "run.json", durable.MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_one_is_named_and_passed_over(
    checkpoints: Checkpoints, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoints.folder / "step_000006" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 4
    told = capsys.readouterr().err
    assert "step_000006 is passed over" in told
    assert name in told or name == durable.MANIFEST


def test_all_damaged_is_an_error_and_none_is_a_start(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for path in checkpoints.folder.iterdir():
        (path / "optimizer.pt").unlink()
    with pytest.raises(RunError, match=r"no checkpoint in .* is undamaged"):
        checkpoints.newest()
    assert Checkpoints(tmp_path / "none", keep=1).newest() is None


def test_another_number_of_processes_is_refused(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="saved by 1 processes, and 2 would go on with it"):
        checkpoints.newest()


def test_a_full_disk_leaves_the_old_ones(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(folder: Path) -> None:
        fill(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match=r"step_000008 cannot be written.*Free some space"):
        checkpoints.save(8, no_space, {}, needed=0)
    disk = shutil.disk_usage(checkpoints.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk._replace(free=durable._SPARE + 1_000))
    with pytest.raises(RunError, match=r"step_000008 cannot be written: 5,000 bytes are needed, 1,000 are free"):
        checkpoints.save(8, pytest.fail, {}, needed=5_000)  # nothing is begun
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step_000004", "step_000006"]
    assert checkpoints.saved(6)


def test_another_error_is_not_taken_for_a_full_disk(checkpoints: Checkpoints) -> None:
    def broken(folder: Path) -> None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        checkpoints.save(8, broken, {}, needed=0)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step_000004", "step_000006"]


def test_what_a_killed_save_left_is_replaced(checkpoints: Checkpoints) -> None:
    left = durable.unfinished(checkpoints.folder / "step_000008")
    left.mkdir()
    (left / "half").write_bytes(b"ha")
    checkpoints.save(8, fill, {}, needed=0)
    assert checkpoints.saved(8)
    assert not (checkpoints.folder / "step_000008" / "half").exists()
    assert not durable.unfinished(checkpoints.folder / "step_000008").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("old")

    def fail_halfway() -> None:
        with durable.replacing(path) as file:
            file.write("half of the new")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_text() == "old"
    with durable.replacing(path) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_a_run_falls_back_to_the_checkpoint_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Never a fresh optimizer: training goes on from the step that has all of its state."""
    flags = ("--training.save_every", "2", "--data.eval_size", "2", "--algorithm.alpha", "0.5")
    train(request(tmp_path / "run", *flags))
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    (tmp_path / "run" / "checkpoints" / "step_000004" / name).unlink()
    train(request(tmp_path / "run", *flags, "--resume"))
    assert f"{name} is missing" in capsys.readouterr().err
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_damaged_batch_of_self_training(tmp_path: Path) -> None:
    """It is collected again where the weights that sampled it are there, and else an error."""
    flags = ("--training.save_every", "2", "--data.eval_size", "2", "--env", "retry")
    train(request(tmp_path / "run", *flags, algo="star"))
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    tokens = tmp_path / "run" / "collected" / "iteration_002" / "batch_000001" / "tokens.json"
    tokens.write_text(json.dumps({"sampled": 0, "env": 0, "prover": 0}))
    with pytest.raises(RunError, match=r"batch_000001: tokens.json.*fitted already"):
        train(request(tmp_path / "run", *flags, "--resume", algo="star"))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if path.name > "step_000003":  # the end of the first iteration is in none of the later ones
            shutil.rmtree(path)
    train(request(tmp_path / "run", *flags, "--resume", algo="star"))
    assert_same_run(tmp_path / "whole", tmp_path / "run")
