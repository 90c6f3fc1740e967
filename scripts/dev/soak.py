#!/usr/bin/env python
"""Train for thousands of short steps and see whether memory, open files or the disk grow.

    python scripts/dev/soak.py --steps 2000 --out runs/soak

Takes further flags of `backtrack-mrt train`. Writes soak.csv beside the run's log, and prints what each of them was at
a quarter of the steps (the warm-up), at the end, and at most after the warm-up."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping
from pathlib import Path

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.runs import durable
from backtrack_mrt.runs.directory import RunDir

SHORT = (
    *("--training.problems_per_step", "2", "--training.group_size", "2", "--training.micro_batch_size", "4"),
    *("--training.save_every", "20", "--training.saved_rollouts", "4", "--data.eval_size", "8"),
)
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="updates")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="run directory")
    parser.add_argument("--every", type=int, default=20, help="steps between two looks")
    options, flags = parser.parse_known_args()
    if not 0 < options.every <= options.steps:
        raise UserError(
            "--steps", options.steps, f"it looks every {options.every} steps", "Take more, or less --every."
        )
    request = read_request(
        [*SHORT, "--training.steps", str(options.steps), "--output-dir", str(options.out), "--overwrite", *flags]
    )
    from backtrack_mrt.training.train import train

    looks: list[dict[str, float]] = []
    log = RunDir.log

    def log_and_look(run: RunDir, step: int, metrics: Mapping[str, float]) -> None:
        log(run, step, metrics)
        if step % options.every == 0:
            looks.append({"step": step} | look(run))

    RunDir.log = log_and_look  # type: ignore[method-assign, assignment]
    train(request)
    with (options.out / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, looks[0])
        writer.writeheader()
        writer.writerows(looks)
    warm = [row for row in looks if row["step"] >= options.steps / 4]
    print(f"{'':24}{'warm':>10}{'end':>10}{'most':>10}")
    for name in (name for name in looks[0] if name != "step"):
        values = [row[name] for row in warm]
        print(f"{name:24}{values[0]:10.1f}{values[-1]:10.1f}{max(values):10.1f}")


def look(run: RunDir) -> dict[str, float]:
    """What the run holds now. The log itself is the one thing that may grow, a line per step."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    written = durable.size(run.path) - run.metrics_path.stat().st_size
    return {
        "resident MiB": resident / 2**20,
        "open files": len(os.listdir("/proc/self/fd")),
        "disk MiB, less the log": written / 2**20,
        "rollout files": sum(1 for _ in run.trajectories.iterdir()),
        "log MiB": run.metrics_path.stat().st_size / 2**20,
    }


if __name__ == "__main__":
    run_main(main)
