"""The reproduction in small: a few thousand tokens, the algorithms that its effects need, one seed."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.finished_runs import finished
from support.pictures import pictures
from support.scripts import imported

from backtrack_mrt.errors import Interrupted, UserError
from backtrack_mrt.evaluation.tuning import Tried, Tuning

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce.py"
NEEDED = ("mrt-rl", "grpo", "rise", "length-penalty")
SMALL = "--tokens 3000 --training.problems_per_step 4 --data.eval_size 16 --data.validation_size 16"


def script() -> Any:
    return imported(SCRIPT)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--jobs", "0"], "--jobs"),
        (["--tokens", "-5"], "--tokens"),
        (["--sedes", "0"], "sedes"),
        (["--seeds", "0", "0"], "given twice"),
        (["--seeds", "10000"], "a seed that chose"),
        (["--out", "{file}"], "--out"),
        (["--runs", "{file}"], "--runs"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    flags: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reproduce = script()
    monkeypatch.setattr(reproduce, "call", lambda *_: pytest.fail("something runs"))
    (tmp_path / "file").write_text("")
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    typed = [flag.format(file=tmp_path / "file") for flag in flags]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *folders, *typed])
    with pytest.raises((UserError, SystemExit)) as found:
        reproduce.main()
    assert told in str(found.value) + capsys.readouterr().err
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


CHILD = """
import signal, sys, time
signal.signal(signal.{name}, lambda *_: sys.exit({code}))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_signals_are_passed_on(name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce, log = script(), tmp_path / "log"
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-c", CHILD.format(name=name, code=code)))
    with reproduce.passing_signals_on(), ThreadPoolExecutor(1) as pool:
        under_way, next_one = (pool.submit(reproduce.call, log, ["train"]) for _ in range(2))
        while not (log.exists() and "ready" in log.read_text()):
            assert not under_way.done()
            time.sleep(0.01)
        os.kill(os.getpid(), getattr(signal, name))
        for job in (under_way, next_one):
            found = job.exception(30)
            assert isinstance(found, Interrupted)
            assert found.code == code
    assert log.read_text() == "ready\n"


def test_a_run_that_broke_down_is_one_of_them(tmp_path: Path) -> None:
    reproduce = script()
    for name in ("mrt-rl", "grpo"):
        Tuning(["signs/validation"], [Tried(name, 1, {}, 10000, "run", 0.6, 0.5, {})]).write(tmp_path / name)
        for seed in range(2):
            path = tmp_path / name / f"{name}-seed{seed}"
            finished(path, name, seed, None if (name, seed) == ("grpo", 1) else 0.6)
    found = reproduce.compared(tmp_path, ("mrt-rl", "grpo"), (0, 1))
    assert "grpo broke down in 1 of 2" in found.headline()
    assert math.isnan(reproduce.progress(found.runs["grpo"][1], tmp_path))


@pytest.mark.slow  # a minute
def test_from_tuning_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce = script()
    monkeypatch.setattr(reproduce, "RUNS", {name: reproduce.RUNS[name] for name in NEEDED})
    for names in ("FRUGAL", "CURVES"):
        monkeypatch.setattr(reproduce, names, tuple(name for name in getattr(reproduce, names) if name in NEEDED))
    small = ["--tune", "training.epochs", "1", "2", "--tune-seeds", "10000"]
    monkeypatch.setattr(reproduce, "TABLE", small)
    monkeypatch.setattr(reproduce, "WARM_STEPS", "2")
    monkeypatch.setattr(reproduce, "CURVE", [*small, "--training.lr_schedule", "constant", "--evaluation.every", "1"])
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--seeds", "0", *folders, *SMALL.split()])
    with pictures():
        reproduce.main()
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    for part in ("1 gain", "6 progress", "gain after 12,000", "**kept**", "learning_accuracy.png"):
        assert part in page
    images = tmp_path / "images" / "results"
    assert (images / "curves" / "learning_accuracy.png").exists()
    numbers = json.loads((images / "table" / "comparison.json").read_text(encoding="utf-8"))
    assert len(numbers["tuning"]) == 2 * len(NEEDED)  # as many runs for each algorithm
    assert {tried["seed"] for tried in numbers["tuning"]}.isdisjoint({0})
    spent = numbers["algorithms"]["mrt-rl"]["training tokens, total"]
    alike = "gain over the base, equal total tokens"
    assert {name for name, found in numbers["algorithms"].items() if alike in found} == {"mrt-rl", "grpo", "rise"}
    grpo = tmp_path / "runs" / "total" / "grpo" / "grpo-seed0"
    training = yaml.safe_load((grpo / "config.yaml").read_text(encoding="utf-8"))["training"]
    assert training["total_tokens"] == spent[0]
    kept = [tried for tried in numbers["tuning"] if tried["algo"] == "grpo"]
    best = max(kept, key=lambda tried: tried["accuracy"] - tried["base"])["settings"]["training.epochs"]
    assert training["epochs"] == int(best)

    summary = tmp_path / "runs" / "table" / "mrt-rl" / "mrt-rl-seed0" / "summary.json"
    made = summary.stat().st_mtime_ns
    reproduce.main()  # finished runs are taken as they are
    assert summary.stat().st_mtime_ns == made
