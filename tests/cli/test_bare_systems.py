"""How `backtrack-mrt` starts and ends where something is missing that terminals have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt.errors import run_main

PROGRAM = f"'{sys.executable}' -m backtrack_mrt"


def shell(line: str, folder: Path, **said: str) -> subprocess.CompletedProcess[str]:
    told = {**os.environ, **said}
    return subprocess.run(["sh", "-c", line], cwd=folder, env=told, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("--version >&-", 0, ""),
        ("nope >&-", 2, "error: COMMAND = 'nope'"),
        ("nope 2>&-", 2, ""),
        ("grade - <&- >&- 2>&-", 0, ""),
        ("play --no-model <&-", 0, ""),
    ],
)
def test_closed_streams(line: str, code: int, told: str, tmp_path: Path) -> None:
    """As cron and daemons start programs."""
    ended = shell(f"{PROGRAM} {line}", tmp_path)
    assert ended.returncode == code
    assert ended.stderr[: len(told) or None].startswith(told)
    assert "Traceback" not in ended.stderr


def test_without_docstrings_nothing_starts(tmp_path: Path) -> None:
    ended = shell(f"{PROGRAM} train", tmp_path, PYTHONOPTIMIZE="2")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: PYTHONOPTIMIZE = 2: transformers cannot be imported without docstrings.")
    assert ended.stderr.count("\n") == 1


def test_windows_is_told_of_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "backtrack_mrt.cli.commands.check_env", None)  # what it needs is not there
    told = command("check-env", "backtrack")
    assert (told.returncode, told.stdout) == (2, "")
    assert "Use the Windows Subsystem for Linux (WSL)." in told.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError("the hub\ndoes not answer"), "error: TimeoutError: the hub does not answer\n"),
        (OSError(11, "Resource temporarily unavailable"), "temporarily unavailable\n"),  # no more processes
        (FileNotFoundError(2, "No usable temporary directory found"), "No usable temporary directory found\n"),
    ],
)
def test_what_the_system_refuses_is_told(error: OSError, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no file is concerned."""

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_main(main)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.endswith(told)
    assert said.count("\n") == 1
