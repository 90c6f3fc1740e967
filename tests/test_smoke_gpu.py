"""scripts/smoke_gpu.py on a machine without a GPU: every step's small variant, and a row also behind one that fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.engine_subjects import NEEDS_VLLM
from support.scripts import imported

SCRIPT = Path(__file__).parents[1] / "scripts" / "smoke_gpu.py"
LEARNS = r'"grad_norm": [\d.]+'
SPEED = r"engine, in lock step +[\d.]+ tokens/s.* of bare vLLM's"
CACHED = r"engine\.max_rows 4: .*engine\.max_rows 16: .* tokens cached a turn, \d+ preemptions"
FAST = {
    "device": "",
    "plan": r"verdict +fits",
    "resume": r"make test-marked",
    "8B mismatch hf": r"random weights, engine hf: .* apart",
}
SLOW = {
    "mrt-rl hf float32": LEARNS,
    "mrt-rl hf bfloat16": rf"{LEARNS}.*sampling_logp_difference/mean",
    "engine tests": r"\d+ passed",
    "8B step": r"of the roofline.*peak memory [\d.]+ GiB, planned [\d.]+",
    "SmolLM2": r"mrt-rl.*grpo",
}
VLLM = {
    "mrt-rl vllm float32": LEARNS,
    "mrt-rl vllm bfloat16": LEARNS,
    "vLLM tests": r"\d+ passed",
    "8B mismatch vllm": r"random weights, engine vllm: .* apart",
    "Draws": SPEED,
    "cache": CACHED,
    "serve": LEARNS,
}
HERE = [
    *FAST.items(),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW.items()),
    *(pytest.param(*each, marks=NEEDS_VLLM) for each in VLLM.items()),
]


@pytest.fixture
def smoke() -> Any:
    return imported(SCRIPT)


@pytest.mark.parametrize(("name", "said"), HERE)
def test_a_step_runs_without_a_gpu(name: str, said: str, smoke: Any, tmp_path: Path) -> None:
    step = next(step for step in smoke.steps(tmp_path, gpu=False) if step.name == name)
    row = replace(step, seconds=smoke.WHOLE).row(smoke.WHOLE)  # processors may be busy
    assert row.get("ok", name == "resume"), row
    assert re.search(said, json.dumps(row)), row


@pytest.mark.parametrize("gpu", [False, True])
def test_every_step_is_tested_here(gpu: bool, smoke: Any, tmp_path: Path) -> None:
    assert {step.name for step in smoke.steps(tmp_path, gpu)} == FAST.keys() | SLOW.keys() | VLLM.keys()


def test_it_goes_on_after_a_failure(
    smoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    child = tmp_path / "child"
    leaves = f"sleep 600 & echo $! > {child}; "
    server = [sys.executable, "-c", "raise SystemExit('no memory')"]
    made = [
        smoke.Step("fails", [sys.executable, "-c", "raise SystemExit('why')"], 60),
        smoke.Step("hangs", ["sh", "-c", f"{leaves} sleep 600"], 2),
        smoke.Step("lacks", [], 1, None, "no such thing"),
        smoke.Step("without its server", [], 60, None, "", server, "http://127.0.0.1:9"),
        smoke.Step("works", [sys.executable, "-c", "print(7)"], 60),
    ]
    monkeypatch.setattr(smoke, "steps", lambda folder, gpu: iter(made))
    monkeypatch.setattr(sys, "argv", ["smoke_gpu.py"])
    assert smoke.main() == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("ok") for row in rows] == [False, False, None, False, True]
    assert [rows[k]["error"] for k in (0, 1, 3)] == ["why", "did not end in 2 s", "no memory"]
    assert rows[4]["said"] == ["7"]
    assert not running(int(child.read_text())), "what a step has started ends with it"


def running(process: int) -> bool:
    """Whether it is there, and not dead and merely not asked for its exit code."""
    try:
        os.kill(process, 0)
        return " Z " not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_server_is_there_before_its_step_and_ends_with_it(smoke: Any, tmp_path: Path) -> None:
    """Found by an answer at its address: here a file that is called as what a server is asked for."""
    (tmp_path / "health").write_text("ready", encoding="utf-8")
    url = smoke.served(tmp_path, False, "").url
    serving = [sys.executable, "-m", "http.server", url.rpartition(":")[2], "--bind", "127.0.0.1", "-d", str(tmp_path)]
    asks = f"import urllib.request as u; print(u.urlopen({url + '/health'!r}).read().decode())"
    row = smoke.Step("asks", [sys.executable, "-c", asks], 120, None, "", serving, url).row(120)
    assert row["said"] == ["ready"]
    assert not smoke.answers(url)


def test_a_step_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", "plan", "nosuch"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no step 'nosuch'. Steps: 'device', 'plan', " in done.stderr
