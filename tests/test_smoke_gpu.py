"""scripts/smoke_gpu.py on a machine without a GPU: a row for each step, also behind one that fails."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "smoke_gpu.py"


@pytest.mark.slow
def test_steps_run_without_a_gpu() -> None:
    wanted = ["device", "plan", "mrt-rl hf bfloat16", "8B shape"]
    done = subprocess.run([sys.executable, SCRIPT, "--only", *wanted], capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["step"] for row in rows] == wanted
    assert all(row["ok"] for row in rows), rows
    assert rows[1]["said"][-1].startswith("verdict           fits")
    assert rows[2]["grad_norm"] > 0
    assert "sampling/sampling_logp_difference/mean" in rows[2]


def test_it_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    spec = importlib.util.spec_from_file_location("smoke_gpu", SCRIPT)
    assert spec
    assert spec.loader
    smoke = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smoke_gpu", smoke)
    spec.loader.exec_module(smoke)
    made = [
        smoke.Step("fails", [sys.executable, "-c", "raise SystemExit('why')"], 60),
        smoke.Step("hangs", [sys.executable, "-c", "import time; time.sleep(60)"], 1),
        smoke.Step("lacks", [], 1, None, "no such thing"),
        smoke.Step("works", [sys.executable, "-c", "print(7)"], 60),
    ]
    monkeypatch.setattr(smoke, "steps", lambda folder, gpu: iter(made))
    monkeypatch.setattr(sys, "argv", ["smoke_gpu.py"])
    assert smoke.main() == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("ok") for row in rows] == [False, False, None, True]
    assert rows[0]["error"] == "why"
    assert rows[3]["said"] == ["7"]


def test_a_step_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", "plan", "nosuch"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no step 'nosuch'. Steps: 'device', 'plan', " in done.stderr
