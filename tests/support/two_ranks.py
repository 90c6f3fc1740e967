"""Two processes that train together, resumed after every step. Run by tests/training/test_processes.py in a process of
its own: it imports everything once, and every rank is a fork of it.

    python -m support.two_ranks ALGO FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from support.killed_runs import forked, wait
from support.short_runs import assert_same_run, request

import backtrack_mrt.training.held_out
import backtrack_mrt.training.train
from backtrack_mrt.errors import Interrupted
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.train import train

FLAGS = (
    *("--training.steps", "12", "--training.save_every", "1", "--training.keep_checkpoints", "99"),
    *("--evaluation.every", "5"),
    *("--data.train_size", "10", "--data.eval_size", "2"),  # passes over the problems end within steps, and between
)


def started(algo: str, folder: Path, *flags: str) -> list[int]:
    """The process ids of two ranks at work on a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work(rank: str) -> None:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        for module in (backtrack_mrt.training.train, backtrack_mrt.training.held_out):
            module.rebuild = lambda *_, **__: None  # type: ignore[attr-defined]  # reports would take most of the time
        try:
            train(request(folder, *FLAGS, *flags, algo=algo))
        except Interrupted as stop:
            os._exit(stop.code)
        processes.leave()

    return [forked(lambda rank=rank: work(rank)) for rank in ("0", "1")]  # type: ignore[misc]


def trained(algo: str, folder: Path, *flags: str) -> None:
    codes = [wait(rank) for rank in started(algo, folder, *flags)]
    assert codes == [0, 0], codes


def resume_everywhere(algo: str, folder: Path) -> None:
    whole = folder / "whole"
    trained(algo, whole)
    steps = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert len(steps) == 12
    for last in steps[:-1]:
        cut = folder / last
        shutil.copytree(whole, cut)
        for later in (path for path in (cut / "checkpoints").iterdir() if path.name > last):
            shutil.rmtree(later)
        trained(algo, cut, "--resume")
        assert_same_run(whole, cut)
    print(f"{algo}: resumed after {len(steps) - 1} steps", flush=True)


def stop_one(algo: str, folder: Path) -> None:
    """SIGTERM to one of the two: both stop at the end of a step, with a checkpoint of it."""
    run = RunDir(folder / "stopped")
    ranks = started(algo, run.path)
    while len(run.metrics()) < 3:
        time.sleep(0.02)
    os.kill(ranks[1], signal.SIGTERM)
    assert [wait(rank) for rank in ranks] == [75, 75]
    assert (run.checkpoints / f"step_{len(run.metrics()):06d}").is_dir()
    trained(algo, run.path, "--resume")
    assert_same_run(folder / "whole", run.path)
    print(f"{algo}: stopped and resumed", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    resume_everywhere(sys.argv[1], Path(sys.argv[2]))
    stop_one(sys.argv[1], Path(sys.argv[2]))
