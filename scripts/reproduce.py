#!/usr/bin/env python
"""The paper in miniature: the embedded task through all algorithms, with several seeds, and what it shows.

    python scripts/reproduce.py                                 # docs/results.md and its figures
    python scripts/reproduce.py --seeds 0 1 --out /tmp/results --runs /tmp/runs

Every algorithm first tries the same learning rates on validation problems; the best is trained with all seeds and
judged on the test split. Algorithms run side by side, one process of one thread each. Finished runs are taken as they
are: an interrupted reproduction goes on where it stopped. Flags that this script does not know go to every run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from backtrack_mrt.data.demonstrations.files import read_demonstrations
from backtrack_mrt.data.demonstrations.stitching import PROTOCOLS
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.effects import effects, table
from backtrack_mrt.evaluation.given_history import histories, progress_from
from backtrack_mrt.evaluation.learning_curves import budget_rows
from backtrack_mrt.evaluation.tables import as_markdown
from backtrack_mrt.evaluation.tuning import Tuning, read_tuning
from backtrack_mrt.reports.build import FIGURES, report_comparison
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.runs.finished import Run, read_run

SETTINGS = ["--evaluation.every", "26"]
RATES = ["--tune", "training.learning_rate", "3e-4", "1e-3", "3e-3"]
RUNS = {  # flags by the name of the folder; the first is what the others are compared with
    "mrt-rl": ["--algo", "mrt-rl"],
    "grpo": ["--algo", "grpo"],
    "rise": ["--algo", "rise"],
    "mrt-rl-turn": ["--algo", "mrt-rl", "--algorithm.credit", "turn"],
    "length-penalty": ["--algo", "length-penalty", "--algorithm.strength", "0.8"],
    "star": ["--algo", "star"],
    "mrt-star": ["--algo", "mrt-star"],
    "star-shortest": ["--algo", "star-shortest"],
}
FORMS = ("backtrack", "star", "rise")  # of warm-start data, made of the same problems
WARM_STEPS = "40"  # updates of each warm start
GIVEN = 512  # attempts from which all policies play on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)), metavar="SEED")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/reproduction"), metavar="FOLDER", help="run directories"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="FOLDER", help="where results.md goes")
    parser.add_argument("--tokens", type=int, default=480_000, help="sampled by every run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="algorithms that run side by side")
    args, flags = parser.parse_known_args()
    start = time.monotonic()
    args.runs.mkdir(parents=True, exist_ok=True)
    settings = [*SETTINGS, "--training.sampled_tokens", str(args.tokens), *flags]
    with ThreadPoolExecutor(args.jobs) as pool:
        trained = [pool.submit(train, name, args.runs, args.seeds, settings) for name in RUNS]
        warmed = [pool.submit(warm_start, seed, args.runs, flags) for seed in args.seeds]
        for job in (*trained, *warmed):
            job.result()
    comparison = Comparison([run for name in RUNS for run in finished(args.runs / name, args.seeds)], tried(args.runs))
    losses = {form: [warm_loss(args.runs, form, seed) for seed in args.seeds] for form in FORMS}
    shared = {label: [progress(run, args.runs) for run in runs] for label, runs in comparison.runs.items()}
    found = table(effects(comparison, args.tokens // 2, losses, shared))
    images = args.out / "images" / "results"
    comparison.write(args.runs)
    report_comparison(comparison, args.runs)
    images.mkdir(parents=True, exist_ok=True)
    for figure in sorted((args.runs / FIGURES).glob("*.png")):
        shutil.copyfile(figure, images / figure.name)
    shutil.copyfile(args.runs / "comparison.json", images / "comparison.json")
    control = next(label for label, runs in comparison.runs.items() if runs[0].config.algo == "grpo")
    minutes = (time.monotonic() - start) / 60
    text = "\n".join(
        [
            "# The paper in miniature",
            "",
            f"`python {shlex.join(['scripts/reproduce.py', '--seeds', *map(str, args.seeds), *flags])}`: each run with "
            f"`{shlex.join(settings)}`. {minutes:.0f} minutes in the last call, {args.jobs} processes of one thread. "
            "No seed was left out.",
            "",
            found,
            f"Half of the tokens and all of them (test split, {len(args.seeds)} seeds; a gain over {control}'s is "
            "paired by seed):",
            "",
            as_markdown(budget_rows(comparison.runs, control, (args.tokens // 2, args.tokens))),
            comparison.markdown().replace("# ", "## ", 1),
            *(f"![{path.stem}](images/results/{path.name})" for path in sorted(images.glob("*.png"))),
            "",
        ]
    )
    (args.out / "results.md").write_text(text, encoding="utf-8")
    print(found)
    print(f"{args.out / 'results.md'}, {minutes:.0f} minutes")


def train(name: str, runs: Path, seeds: Sequence[int], settings: Sequence[str]) -> None:
    """One algorithm: its learning rate on validation problems, then all seeds."""
    over = ["--seeds", *map(str, seeds), "--output-dir", str(runs / name)]
    call(runs / f"{name}.log", ["train", *RUNS[name], *RATES, *settings, *over])


def finished(folder: Path, seeds: Sequence[int]) -> list[Run]:
    """The runs of one algorithm."""
    algo = RUNS[folder.name][1]
    return [read_run(folder / f"{algo}-seed{seed}") for seed in seeds]


def tried(runs: Path) -> Tuning:
    """All that was tried, under the names of the folders."""
    tunings = {name: tuning for name in RUNS if (tuning := read_tuning(runs / name))}
    rows = [replace(row, algo=name) for name, tuning in tunings.items() for row in tuning.tried]
    return Tuning(next(iter(tunings.values())).sets, rows)


def warm_start(seed: int, runs: Path, flags: Sequence[str]) -> None:
    """Traces of the base in each form, and a warm start on each."""
    log, data = runs / f"warm-seed{seed}.log", runs / f"warm-seed{seed}"
    if not data.exists():
        call(log, ["warm-start", "--out", str(data), *flags, "--training.steps", "24", "--seed", str(seed)])
    for form in FORMS:
        run = runs / f"sft-{form}-seed{seed}"
        if (run / "summary.json").exists():
            continue
        sft = ["train", *flags, "--algo", "sft", "--env", PROTOCOLS[form], "--data.traces", str(data / f"{form}.jsonl")]
        short = ["--training.steps", WARM_STEPS, "--data.eval_size", "32", "--prover.estimator", "none"]
        call(log, [*sft, *short, "--seed", str(seed), "--output-dir", str(run), "--overwrite"])


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


def progress(run: Run, runs: Path) -> float:
    """Of the first backtrack from wrong attempts of the base, the same for every policy, by the base's values."""
    model = run.config.model.model_copy(update={"name_or_path": str(run.path / "model")})
    parts = assemble(run.config.model_copy(update={"model": model}))
    demonstrations = read_demonstrations(runs / f"warm-seed{run.config.seed}" / "backtrack.jsonl")
    starts = histories(demonstrations, run.config.protocol, parts.dialogue)["given attempt"][:GIVEN]
    collector = parts.collector(run.config.protocol, with_values=False)
    prover = parts.prover(run.config.prover.model_copy(update={"policy": "reference"}))
    return progress_from(starts, collector, prover, run.config.evaluation.temperature, run.config.seed).mean


if __name__ == "__main__":
    run_main(main)
