"""One run at a time in a directory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.short_runs import request

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.lock import LOCK, locked
from backtrack_mrt.training.train import train

OWNER = """
import sys, time
from pathlib import Path
from backtrack_mrt.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_run_is_refused_before_anything_loads(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError, match=rf"another run is at work in it \(process {owner.pid} on "):
        train(request(tmp_path / "run", "--model.name_or_path", "somewhere/else"))
    owner.kill()
    owner.wait()
    with locked(tmp_path / "run"):  # the dead owner's lock is free
        assert str(owner.pid) not in (tmp_path / "run" / LOCK).read_text()


def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / LOCK).read_text()
    told = capsys.readouterr().err
    assert (
        told == f"{tmp_path / 'run'} cannot be locked (No locks available): see to it that no other run works in it\n"
    )


def test_a_refused_run_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_lock_s_file_is_no_use_of_the_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK).write_text("process 1 on somewhere\n")
    RunDir.check(request(run).config)
