"""Workers on systems that lack what Linux has."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtrack_mrt.errors import UserError
from backtrack_mrt.grading import MathGrader, Verdict

SQRT = (r"2\sqrt{2}", r"\sqrt{8}")  # needs a worker, is right


def patched(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the workers run this before their own code."""
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_system_that_limits_no_memory_grades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS, as it answers."""
    code = """
import resource
def refuse(limit, most, real=resource.setrlimit):
    if limit == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    real(limit, most)
resource.setrlimit = refuse
"""
    patched(tmp_path, code, monkeypatch)
    with MathGrader(workers=1) as grader:
        assert grader.grade(*SQRT) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os\ndef fork():\n    raise BlockingIOError(11, 'no more')\nos.fork = fork", "no more"),
        ("import signal\ndel signal.SIGPROF", "died twice"),
    ],
)
def test_where_no_child_can_grade_nothing_times_out(
    code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched(tmp_path, code, monkeypatch)
    with MathGrader(workers=1) as grader, pytest.raises(UserError, match=told):
        grader.grade(*SQRT)
