"""The kill loop: runs of every kind are killed with SIGKILL at random times, again and again resumed, and compared with
one that was left alone. Run by tests/training/test_kills.py, and by hand from the folder tests/:

    python -m support.kill_loop FOLDER KILLS SEED

First a run directory is made and killed at each of its file operations; the other kills are shared out over the kinds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from support import two_ranks
from support.killed_runs import Killer, alive, forked, wait
from support.short_runs import assert_same_run, request

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.checkpoints import Checkpoints
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.inputs import save_inputs
from backtrack_mrt.training.compare import train_and_compare
from backtrack_mrt.training.train import train

FLAGS = (
    *("--training.steps", "6", "--training.save_every", "1", "--data.eval_size", "2", "--prover.calibration", "0"),
    *("--training.micro_batch_size", "4", "--training.group_size", "2"),
)
STAR = (*FLAGS, "--training.steps", "4", "--algorithm.iterations", "2")
COMPARED = (*FLAGS, "--training.steps", "3")


@dataclass(frozen=True)
class Kind:
    """A way to train. start: the processes at work in a folder, going on with what is there. runs: their directories
    below it. share: of the kills."""

    start: Callable[[Path], list[int]]
    runs: tuple[str, ...] = ("",)
    share: float = 0.25


def trained(algo: str, flags: tuple[str, ...]) -> Callable[[Path], list[int]]:
    def start(folder: Path) -> list[int]:
        return [forked(lambda: train(request(folder, *flags, *resumed(folder), algo=algo)))]

    return start


def compared(folder: Path) -> list[int]:
    requests = [request(folder, *COMPARED, algo=algo) for algo in ("mrt-rl", "grpo")]
    return [forked(lambda: train_and_compare(requests, [0], folder))]


def two_processes(folder: Path) -> list[int]:
    return two_ranks.started("grpo", folder, "--training.steps", "6", *resumed(folder))


def resumed(folder: Path) -> tuple[str, ...]:
    return ("--resume",) if RunDir(folder).config_path.exists() else ()


KINDS = {
    "reinforcement learning": Kind(trained("mrt-rl", FLAGS), share=0.35),
    "self-training": Kind(trained("star", STAR)),
    "comparison": Kind(compared, runs=("mrt-rl-seed0", "grpo-seed0")),
    "two processes": Kind(two_processes, share=0.15),
}


def kill_creations(folder: Path) -> int:
    """Make a run directory that dies at its first, second, … file operation: each can be started or resumed after it.
    Returns how often it died."""
    config = request(folder / "made").config
    for at in range(1, 1000):

        def dying(at: int = at) -> None:
            run = RunDir(config.run_path)
            Killer(at)
            with run.locked():
                RunDir.create(config)
                save_inputs(run.path, {"data.train": "0"})

        code = wait(forked(dying))
        left = config.run_path.rename(folder / f"made_{at:03d}") if config.run_path.exists() else None
        if left is not None:
            here = config.model_copy(update={"output_dir": str(left)})
            ways = [how for how in ("refuse", "resume") if _accepted(here, how)]
            assert len(ways) == 1, f"killed at operation {at}, it can be {ways or 'neither started nor resumed'}"
            RunDir.create(here, ways[0])
        if code == 0:
            return at - 1
        assert code == -signal.SIGKILL
    raise AssertionError("a directory without an end")


def _accepted(config: object, existing: str) -> bool:
    try:
        RunDir.check(config, existing)  # type: ignore[arg-type]
    except UserError:
        return False
    return True


def kill_at_random(name: str, folder: Path, kills: int, rng: random.Random) -> int:
    """Kill runs of a kind until it was done so often and one has come to its end. Returns how many did."""
    kind, killed, finished = KINDS[name], 0, 0
    began = time.monotonic()
    assert _ended(kind.start(folder / "whole")) == {0}
    whole = time.monotonic() - began
    while killed < kills or not finished:
        path = folder / f"cut_{finished}"
        at_work = kind.start(path)
        if killed < kills:
            _sleep_while_alive(rng.uniform(0, whole), at_work)
            for victim in at_work if rng.random() < 0.5 else rng.sample(at_work, 1):
                os.kill(victim, signal.SIGKILL)
            _sleep_while_alive(30, at_work)  # a rank that is left alone gives up
            for process in filter(alive, at_work):
                os.kill(process, signal.SIGKILL)
        if (codes := _ended(at_work)) == {0}:
            for run in kind.runs:
                assert_same_run(folder / "whole" / run, path / run)
            finished += 1
            continue
        assert killed < kills, f"exit codes {codes} of a run that was left alone"
        assert -signal.SIGKILL in codes
        killed += 1
        lost = max(_lost(path / run) for run in kind.runs)
        assert lost <= 2, f"{lost} steps lost"
    return finished


def _lost(path: Path) -> int:
    """Steps that were logged and are to be done again."""
    run = RunDir(path)
    newest, logged = Checkpoints(run.checkpoints, 2)._paths(), run.metrics()
    saved = int(newest[-1].name.removeprefix("step_")) if newest else 0
    return max(logged[-1]["step"] - saved, 0) if logged else 0


def _ended(at_work: list[int]) -> set[int]:
    return set(map(wait, at_work))


def _sleep_while_alive(seconds: float, at_work: list[int]) -> None:
    """Sleep, but not beyond the end of all of them."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(map(alive, at_work)):
        time.sleep(0.02)


def shares(kills: int) -> Iterator[tuple[str, int]]:
    """How many kills each kind gets: at least one."""
    for name, kind in KINDS.items():
        yield name, max(round(kills * kind.share), 1)


def main(folder: Path, kills: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    died = kill_creations(folder)
    print(f"directory creation: {died} kills, one at each file operation; each can be started or resumed", flush=True)
    total = died
    for name, count in shares(kills):
        work = folder / name.replace(" ", "-")
        work.mkdir()
        began = time.monotonic()
        finished = kill_at_random(name, work, count, random.Random(f"{seed}/{name}"))
        total += count
        told = f"{finished} runs to the end, each the same as the one left alone"
        print(f"{name}: {count} kills, {told} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{total} kills, nothing lost", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
