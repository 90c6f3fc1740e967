#!/usr/bin/env python
"""Rollouts one update off (`training.asynchronous`) beside synchronous ones: trajectories a second, and what is learnt.

    python scripts/bench/asynchronous.py --engine.type vllm --engine.server http://127.0.0.1:8000 --seeds 0 1 2

Trains both ways with every seed, in turn, with the flags of `backtrack-mrt train`. Wall seconds: the server works in a
process of its own. Medians over the steps of a run but the first two, then median, lowest and highest of the runs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from statistics import mean, median
from typing import TYPE_CHECKING

from timing import check_steps, spread

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config, RunRequest
from backtrack_mrt.errors import run_main

if TYPE_CHECKING:
    from backtrack_mrt.runs.finished import Run

PARTS = ("step", "wait", "rollout", "prover", "update")


def main() -> None:
    request = read_request(sys.argv[1:], description=__doc__)
    config, seeds = request.config, request.seeds or (request.config.seed,)
    check_steps(config.training.steps, warm_up=2)
    runs: dict[bool, list[Run]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            for ahead in (False, True) if number % 2 == 0 else (True, False):
                runs[ahead].append(trained(config, seed, ahead, f"{folder}/{seed}-{ahead}"))
                tell(config, f"seed {seed}, {'a' if ahead else ''}synchronous", runs[ahead][-1:])
    for ahead, found in runs.items():
        tell(config, f"{'a' if ahead else ''}synchronous", found)
    rates = [rate(config, one) / rate(config, other) for other, one in zip(*runs.values(), strict=True)]
    print(f"asynchronous / synchronous, trajectories a second: {spread(rates)}")
    compared("outcome in training, all updates", runs, lambda run: mean(row["outcome"] for row in run.history))
    compared("held out, base", runs, lambda run: run.summary["base"]["accuracy"]["mean"])
    compared("held out, trained", runs, lambda run: run.summary["trained"]["accuracy"]["mean"])
    for number in range(config.training.steps):
        curve = [mean(run.history[number]["outcome"] for run in found) for found in runs.values()]
        print(f"update {number + 1:3}: outcome {curve[0]:.3f} synchronous, {curve[1]:.3f} asynchronous")


def trained(config: Config, seed: int, ahead: bool, folder: str) -> Run:
    """A whole run, read back."""
    from backtrack_mrt.runs.finished import read_run
    from backtrack_mrt.training.train import train

    training = config.training.model_copy(update={"asynchronous": ahead})
    train(RunRequest(config.model_copy(update={"training": training, "seed": seed, "output_dir": folder})))
    return read_run(folder)


def seconds(run: Run, part: str) -> float:
    """Of a step."""
    return median(row.get(f"time/{part}") or 0.0 for row in run.history[2:])


def rate(config: Config, run: Run) -> float:
    """Trajectories a second."""
    return config.training.rows / seconds(run, "step")


def tell(config: Config, title: str, runs: list[Run]) -> None:
    """How fast they were, and where the time went."""
    parts = ", ".join(f"{part} {median(seconds(run, part) for run in runs):.2f} s" for part in PARTS)
    print(f"{title}: {spread([rate(config, run) for run in runs])} trajectories a second ({parts})", flush=True)


def compared(title: str, runs: dict[bool, list[Run]], number: Callable[[Run], float]) -> None:
    """A number of both ways, and by how much they differ seed by seed, with its 95 % Student interval."""
    from backtrack_mrt.evaluation.metrics.estimates import over_seeds

    sides = [[number(run) for run in found] for found in runs.values()]
    gap = over_seeds([one - other for other, one in zip(*sides, strict=True)])
    both = " and ".join(f"{mean(side):.3f}" for side in sides)
    print(f"{title}: {both}, difference {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] over {gap.n} seeds")


if __name__ == "__main__":
    run_main(main)
