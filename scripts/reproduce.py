#!/usr/bin/env python
"""The paper in miniature: the embedded default through all algorithms, with several seeds, and what it shows.

    python scripts/reproduce.py                                 # docs/results.md and its figures
    python scripts/reproduce.py --seeds 0 1 --out /tmp/results --runs /tmp/runs

Seeds run side by side, one process of one thread each. Finished runs are taken as they are: an interrupted
reproduction goes on where it stopped. Flags that this script does not know go to every run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from backtrack_mrt.data.demonstrations.stitching import PROTOCOLS
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.effects import effects, table
from backtrack_mrt.evaluation.tuning import read_tuning
from backtrack_mrt.reports.build import FIGURES, report_comparison
from backtrack_mrt.runs.finished import read_run

REFERENCE, OTHERS = "mrt-rl", ["grpo", "length-penalty", "star", "rise", "mrt-star"]
SETTINGS = ["--training.steps", "24", "--data.eval_size", "1024"]
FORMS = ("backtrack", "star", "rise")  # of warm-start data, made of the same problems
WARM_STEPS = 40  # updates of each warm start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], metavar="SEED")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/reproduction"), metavar="FOLDER", help="run directories"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="FOLDER", help="where results.md goes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds that run side by side")
    args, flags = parser.parse_known_args()
    start = time.monotonic()
    args.runs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda seed: one_seed(seed, args.runs, [*SETTINGS, *flags]), args.seeds))
    minutes = (time.monotonic() - start) / 60
    algos = [REFERENCE, *OTHERS]
    runs = [read_run(args.runs / f"{algo}-seed{seed}") for algo in algos for seed in args.seeds]
    comparison = Comparison(runs, read_tuning(args.runs))
    found = effects(comparison, {form: [warm_loss(args.runs, form, seed) for seed in args.seeds] for form in FORMS})
    images = args.out / "images" / "results"
    comparison.write(images)
    report_comparison(comparison, args.runs)
    for figure in sorted((args.runs / FIGURES).glob("*.png")):
        shutil.copyfile(figure, images / figure.name)
    text = "\n".join(
        [
            "# The paper in miniature",
            "",
            f"`python {' '.join(['scripts/reproduce.py', '--seeds', *map(str, args.seeds), *flags])}`: each run with "
            f"{' '.join(SETTINGS)}. {minutes:.0f} minutes in the last call, {args.jobs} processes of one thread. "
            "No seed was left out.",
            "",
            table(found),
            comparison.markdown().replace("# ", "## ", 1),
            *(f"![{path.stem}](images/results/{path.name})" for path in sorted(images.glob("*.png"))),
            "",
        ]
    )
    (args.out / "results.md").write_text(text, encoding="utf-8")
    print(table(found))
    print(f"{args.out / 'results.md'}, {minutes:.0f} minutes")


def one_seed(seed: int, runs: Path, flags: list[str]) -> None:
    """All algorithms and warm starts with one seed."""
    log = runs / f"seed{seed}.log"
    train = ["train", *flags]
    call(log, [*train, "--algo", REFERENCE, "--compare", *OTHERS, "--seeds", str(seed), "--output-dir", str(runs)])
    data = runs / f"warm-seed{seed}"
    if not data.exists():
        call(log, ["warm-start", "--out", str(data), *flags, "--training.steps", "24", "--seed", str(seed)])
    for form in FORMS:
        run = runs / f"sft-{form}-seed{seed}"
        if (run / "summary.json").exists():
            continue
        sft = [*train, "--algo", "sft", "--env", PROTOCOLS[form], "--data.traces", str(data / f"{form}.jsonl")]
        steps = ["--training.steps", str(WARM_STEPS), "--data.eval_size", "32", "--prover.estimator", "none"]
        call(log, [*sft, *steps, "--seed", str(seed), "--output-dir", str(run), "--overwrite"])


def call(log: Path, command: list[str]) -> None:
    """Run one of the commands in one thread; its output goes to `log`."""
    print(" ".join(command), flush=True)
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "backtrack_mrt", *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise UserError("reproduction", " ".join(command), f"exit code {done.returncode}", f"See {log}.")


def warm_loss(runs: Path, form: str, seed: int) -> float:
    """Cross-entropy per learnt token, mean over all updates of a warm start: the height of its loss curve."""
    lines = (runs / f"sft-{form}-seed{seed}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(np.mean([json.loads(line)["loss"] for line in lines]))


if __name__ == "__main__":
    run_main(main)
