"""SIGKILL at every file operation of a save and at random times, and signals to the real program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.short_runs import SHORT

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}


def told_by(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    return done.stdout


def test_a_save_survives_a_kill_at_every_file_operation(tmp_path: Path) -> None:
    told = told_by("support.killed_runs", str(tmp_path))
    assert int(told.split()[0]) > 40


@pytest.mark.slow
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    """Of every kind of run: so many as KILLS says, which is more by hand."""
    told = told_by("support.kill_loop", str(tmp_path), os.environ.get("KILLS", "12"), "0")
    assert told.splitlines()[-1].endswith("kills, nothing lost")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("signals", [1, 2])
def test_the_exit_code_and_no_orphans(tmp_path: Path, number: signal.Signals, code: int, signals: int) -> None:
    """One signal ends it with a checkpoint of the last step, two at once; its grading workers end with it."""
    command = [sys.executable, "-m", "backtrack_mrt", "train", "--output-dir", str(tmp_path / "run"), *SHORT]
    command += ["--training.steps", "400", "--data.eval_size", "2"]
    process = subprocess.Popen(command, cwd=TESTS.parent, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    children = descendants(process.pid)
    for _ in range(signals):
        process.send_signal(number)
        time.sleep(0.01)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopping at the next safe point" in told
    assert "Traceback" not in told
    if signals == 1:
        last = len(metrics.read_text().splitlines())
        assert (tmp_path / "run" / "checkpoints" / f"step_{last:06d}").is_dir()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def descendants(parent: int) -> list[int]:
    """Process ids of children, and theirs."""
    task = Path(f"/proc/{parent}/task/{parent}/children")
    children = [int(child) for child in task.read_text().split()] if task.exists() else []
    return [found for child in children for found in (child, *descendants(child))]


FULL_DISK = """
mount -t tmpfs -o size={size} tmpfs {folder} || exit 99
{python} -m backtrack_mrt train {flags}; echo "exit code $?"
{python} -c "
from pathlib import Path
from backtrack_mrt.runs.durable import damage
print('left', [(path.name, damage(path)) for path in sorted(Path('{folder}/run/checkpoints').iterdir())])"
mount -o remount,size=64m {folder}
{python} -m backtrack_mrt train {flags} --resume > /dev/null; echo "exit code $?"
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["6m", "3m"])  # full at the third checkpoint, and in the first
def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path, size: str) -> None:
    """A real one: a small file system of its own. Made larger, the run goes on."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make a file system of its own here (unshare -rm)")
    flags = " ".join([*SHORT, "--training.steps 8 --training.save_every 2 --data.eval_size 2"])
    script = FULL_DISK.format(
        size=size, folder=tmp_path, python=sys.executable, flags=f"--output-dir {tmp_path}/run {flags}"
    )
    command = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(
        command, cwd=TESTS.parent, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode == 99:
        pytest.skip("may not mount a file system here")
    first, left, last = done.stdout.splitlines()[-3:]
    assert (first, last) == ("exit code 1", "exit code 0"), done.stdout + done.stderr
    assert left == ("left [('step_000002', None), ('step_000004', None)]" if size == "6m" else "left []")
    assert "cannot be written: " in done.stderr
    assert "bytes are needed" in done.stderr
    assert "Free some space and go on with --resume." in done.stderr
    assert "Traceback" not in done.stderr
