"""The script to begin reading with runs, is short, and its step makes what was good more likely."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "one_step.py"


def test_one_step_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")
    told = capsys.readouterr().out
    assert "32 trajectories" in told
    assert "Turn 1 · attempt" in told
    losses = re.search(r"Loss (-?[0-9.]+) → (-?[0-9.]+)", told)
    assert losses
    assert float(losses[2]) < float(losses[1])


def test_it_is_short_and_names_the_rooms() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 60
    assert all(f"{room}/" in text for room in ("policy", "data", "rollouts", "grading", "algos", "training"))
