"""The reproduction in small: a few thousand tokens, the algorithms that its effects need, one seed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.pictures import pictures

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce.py"
NEEDED = ("mrt-rl", "grpo", "rise", "length-penalty")
SMALL = "--tokens 3000 --training.problems_per_step 4 --data.eval_size 16"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # a minute
def test_from_tuning_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce = script()
    monkeypatch.setattr(reproduce, "RUNS", {name: reproduce.RUNS[name] for name in NEEDED})
    monkeypatch.setattr(reproduce, "CURVES", ("mrt-rl", "grpo"))
    monkeypatch.setattr(reproduce, "GRID", ["--tune", "training.epochs", "1", "2"])
    monkeypatch.setattr(reproduce, "TRIALS", reproduce.TRIALS[:2])
    monkeypatch.setattr(reproduce, "WARM_STEPS", "2")
    monkeypatch.setattr(reproduce, "CONSTANT", [*reproduce.CONSTANT[:-1], "1"])  # evaluated at every update
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--seeds", "0", *folders, *SMALL.split()])
    with pictures():
        reproduce.main()
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    for part in ("1 gain", "6 progress", "gain after 6,000", "**kept**", "learning_accuracy.png"):
        assert part in page
    images = tmp_path / "images" / "results"
    assert (images / "curves" / "learning_accuracy.png").exists()
    numbers = json.loads((images / "table" / "comparison.json").read_text(encoding="utf-8"))
    assert len(numbers["tuning"]) == 2 * len(NEEDED)  # as many runs for each algorithm
    assert {tried["seed"] for tried in numbers["tuning"]}.isdisjoint({0})

    summary = tmp_path / "runs" / "table" / "mrt-rl" / "mrt-rl-seed0" / "summary.json"
    made = summary.stat().st_mtime_ns
    reproduce.main()  # finished runs are taken as they are
    assert summary.stat().st_mtime_ns == made
