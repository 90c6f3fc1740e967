#!/usr/bin/env python
"""The paper in miniature: the embedded task through all algorithms, with several seeds, and what it shows.

    python scripts/reproduce.py                                 # docs/results.md and its figures
    python scripts/reproduce.py --seeds 0 1 --out /tmp/results --runs /tmp/runs

Every algorithm first tries the same learning rates on validation problems, once and twice over what it has sampled; the
best is trained with all seeds and judged on the test split: at equal sampled tokens, and three that ask no meta-prover
once more at as many tokens in all (the environment's and the prover's, too) as the first has spent. Three have learning
curves: four times the tokens at a constant learning rate, evaluated on the way. Algorithms run side by side, one
process of one thread each. Finished runs are taken as they are: an interrupted reproduction goes on where it stopped;
SIGTERM and Ctrl-C are passed on to what runs. Flags that this script does not know go to every run.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from backtrack_mrt.cli.command import natural
from backtrack_mrt.cli.places import check_folder
from backtrack_mrt.cli.request import comparison_requests, trials
from backtrack_mrt.data.demonstrations.files import read_demonstrations
from backtrack_mrt.data.demonstrations.stitching import PROTOCOLS
from backtrack_mrt.errors import Interrupted, UserError, run_main
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.effects import effects
from backtrack_mrt.evaluation.effects import table as effects_table
from backtrack_mrt.evaluation.given_history import histories, progress_from
from backtrack_mrt.evaluation.learning_curves import budget_rows
from backtrack_mrt.evaluation.tables import as_markdown
from backtrack_mrt.evaluation.tuning import Tuning, read_tuning
from backtrack_mrt.reports.build import report_comparison
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.runs.finished import Run, ended_run, read_run
from backtrack_mrt.runs.interrupts import EXIT_CODES, handled_by
from backtrack_mrt.training.tune import check_validation

GRID = ["--tune", "training.epochs", "1", "2", "training.learning_rate", "3e-4", "1e-3"]
TABLE = [*GRID, "3e-3", "--tune-seeds", "10000", "10001"]
CURVE = [*GRID, "--tune-seeds", "10000", "--training.lr_schedule", "constant", "--evaluation.every", "26"]
CURVES = ("mrt-rl", "grpo", "mrt-rl-stated")  # not rise: half of its tokens are collected before its first update
LONG = 4  # curves have so many times the tokens of the table
FEWER = 5  # seeds of curves, each as long as six runs of the table, and of warm starts
RUNS = {  # flags by the name of the folder; the first is what the others are compared with
    "mrt-rl": ["--algo", "mrt-rl"],
    "grpo": ["--algo", "grpo"],
    "rise": ["--algo", "rise"],
    "mrt-rl-stated": ["--algo", "mrt-rl", "--algorithm.values", "stated", "--algorithm.gae_lambda", "0.8"],
    "mrt-rl-turn": ["--algo", "mrt-rl", "--algorithm.credit", "turn"],
    "mrt-rl-prefix": ["--algo", "mrt-rl", "--algorithm.credit", "prefix"],
    "brpo": ["--algo", "brpo"],
    "length-penalty": ["--algo", "length-penalty", "--algorithm.strength", "0.8"],
    "star": ["--algo", "star"],
    "mrt-star": ["--algo", "mrt-star"],
    "star-shortest": ["--algo", "star-shortest"],
}
FRUGAL = ("grpo", "rise", "mrt-rl-stated")  # without a meta-prover, the rest of all tokens is for samples
FORMS = ("backtrack", "star", "rise")  # of warm-start data, made of the same problems
WARM_STEPS = "40"  # updates of each warm start
PICTURES = {  # of the reports, for the page
    "table": ("gain", "accuracy", "acc_at_turn", "regret_frozen", "progress_backtrack"),
    "curves": ("learning_accuracy", "learning_regret", "gradient_signal"),
}
PROGRAM = (sys.executable, "-m", "backtrack_mrt")
GIVEN = 512  # attempts from which these policies play on
GOING_BACK = ("mrt-rl", "grpo", "rise")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=list(range(8)), metavar="SEED")
    add("--runs", type=Path, default=Path("runs/reproduction"), metavar="FOLDER", help="run directories")
    add("--out", type=Path, default=Path("docs"), metavar="FOLDER", help="where results.md goes")
    add("--tokens", type=natural, default=240_000, help="sampled by every run of the table")
    add("--jobs", type=natural, default=os.cpu_count() or 1, help="algorithms that run side by side")
    args, flags = parser.parse_known_args()
    parts = {
        "table": (tuple(RUNS), args.seeds, [*TABLE, "--training.sampled_tokens", str(args.tokens), *flags]),
        "curves": (CURVES, args.seeds[:FEWER], [*CURVE, "--training.sampled_tokens", str(LONG * args.tokens), *flags]),
    }
    for part, (names, seeds, settings) in parts.items():
        check_folder("--runs", args.runs / part)
        for name in names:
            check(command(name, args.runs / part, seeds, settings))
    check_folder("--out", args.out)
    with passing_signals_on(), ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(train, name, args.runs / part, seeds, settings)
            for part, (names, seeds, settings) in parts.items()
            for name in names
        ]
        jobs += [pool.submit(warm_start, seed, args.runs, flags) for seed in args.seeds[:FEWER]]
        done(pool, jobs)
        spent = [run.tokens("total") for run in finished(args.runs / "table", ["mrt-rl"], args.seeds) if not run.lost]
        total = round(np.mean(spent)) if spent else args.tokens
        done(pool, [pool.submit(equal_total, name, args.runs, total, args.seeds, flags) for name in FRUGAL])
    alike = finished(args.runs / "total", FRUGAL, args.seeds)
    table = compared(args.runs / "table", tuple(RUNS), args.seeds, alike)
    curves = compared(args.runs / "curves", CURVES, args.seeds[:FEWER])
    losses = {form: [warm_loss(args.runs, form, seed) for seed in args.seeds[:FEWER]] for form in FORMS}
    labels = dict(zip(RUNS, table.runs, strict=True))
    given = {labels[name]: [progress(r, args.runs) for r in table.runs[labels[name]][:FEWER]] for name in GOING_BACK}
    found = effects_table(effects(table, losses, given))
    pictures = {
        part: publish(comparison, args.runs / part, args.out / "images" / "results" / part, PICTURES[part])
        for part, comparison in (("table", table), ("curves", curves))
    }
    again = shlex.join(["scripts/reproduce.py", "--seeds", *map(str, args.seeds), "--tokens", str(args.tokens), *flags])
    told = f"`python {again}`: {cost(args.runs)}, {args.jobs} side by side, each in one thread"
    text = page(told, found, args.tokens, table, curves, pictures)
    (args.out / "results.md").write_text(text, encoding="utf-8")
    print(found, args.out / "results.md", sep="\n")


def train(name: str, folder: Path, seeds: Sequence[int], settings: Sequence[str]) -> None:
    """One algorithm: what is to be tuned on validation problems, then all seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    call(folder / f"{name}.log", ["train", *command(name, folder, seeds, settings)])


def command(name: str, folder: Path, seeds: Sequence[int], settings: Sequence[str]) -> list[str]:
    """The flags of an algorithm's training."""
    return [*RUNS[name], *settings, "--seeds", *map(str, seeds), "--output-dir", str(folder / name)]


def equal_total(name: str, runs: Path, tokens: int, seeds: Sequence[int], flags: Sequence[str]) -> None:
    """One algorithm with the settings that were kept for the table, and so many tokens in all."""
    tuning = read_tuning(runs / "table" / name)
    assert tuning  # of `train`
    algo = RUNS[name][1]
    kept = tuning.settings[algo, tuning.best(algo) or 1][0].settings
    settings = [word for field, value in kept.items() for word in (f"--{field}", value)]
    train(name, runs / "total", seeds, [*settings, "--training.total_tokens", str(tokens), *flags])


def done(pool: ThreadPoolExecutor, jobs: Sequence[Future[None]]) -> None:
    """All jobs; the first mistake is told without what has not begun."""
    for job in as_completed(jobs):
        if job.exception():
            pool.shutdown(cancel_futures=True)
        job.result()


def check(flags: Sequence[str]) -> None:
    """Raises UserError for what a training would refuse, before any begins."""
    requests = comparison_requests(flags)
    trials(flags, requests)
    check_validation(requests[0].config)


def finished(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """All runs of a part; one that broke down counts, too."""
    paths = [folder / name / f"{RUNS[name][1]}-seed{seed}" for name in names for seed in seeds]
    return [ended_run(path) or read_run(path) for path in paths]


def compared(folder: Path, names: Sequence[str], seeds: Sequence[int], alike: Sequence[Run] = ()) -> Comparison:
    """All runs of a part, and all that was tried for them, under the names of the folders; beside them those that are
    `alike` in all tokens."""
    tunings = {name: tuning for name in names if (tuning := read_tuning(folder / name))}
    rows = [replace(row, algo=name) for name, tuning in tunings.items() for row in tuning.tried]
    return Comparison([*finished(folder, names, seeds), *alike], Tuning(next(iter(tunings.values())).sets, rows))


def publish(comparison: Comparison, folder: Path, images: Path, pictures: Sequence[str]) -> list[str]:
    """The comparison's report in its folder; pictures and numbers beside the documents. Returns the lines that show the
    pictures that there are: a chart without numbers is not drawn."""
    comparison.write(folder)
    report_comparison(comparison, folder)
    images.mkdir(parents=True, exist_ok=True)
    drawn = [name for name in pictures if (folder / "figures" / f"{name}.png").exists()]
    for path in (*(folder / "figures" / f"{name}.png" for name in drawn), folder / "comparison.json"):
        shutil.copyfile(path, images / path.name)
    return [f"![{name}](images/results/{images.name}/{name}.png)\n" for name in drawn]


def cost(runs: Path) -> str:
    """How many runs there are, and how long they took, in however many sittings."""
    seconds = [json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in runs.rglob("summary.json")]
    return f"{len(seconds)} runs of {sum(sum(each.values()) for each in seconds) / 3600:.1f} hours together"


def page(told: str, found: str, tokens: int, table: Comparison, curves: Comparison, shown: dict[str, list[str]]) -> str:
    """results.md. told: the command; found: the table of effects; shown: lines with pictures."""
    lines = [
        "# The paper in miniature",
        "",
        f"{told}. No seed was left out. Curves and the effects 5 and 6 are over the first {FEWER} seeds at most.",
        "",
        found,
        "## Learning curves",
        "",
        f"{LONG * tokens:,} tokens at a constant learning rate (a gain over grpo's is paired by seed):",
        "",
        as_markdown(budget_rows(curves.runs, "grpo", (tokens // 2, tokens, 2 * tokens, LONG * tokens))),
        curves.markdown().replace("# ", "### ", 1),
        *shown["curves"],
        table.markdown().replace("# ", "## ", 1),
        *shown["table"],
        "",
    ]
    return "\n".join(lines)


def warm_start(seed: int, runs: Path, flags: Sequence[str]) -> None:
    """Traces of the base in each form, and a warm start on each."""
    log, data = runs / f"warm-seed{seed}.log", runs / f"warm-seed{seed}"
    runs.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        call(log, ["warm-start", "--out", str(data), *flags, "--training.steps", "96", "--seed", str(seed)])
    for form in FORMS:
        run = runs / f"sft-{form}-seed{seed}"
        sft = ["train", *flags, "--algo", "sft", "--env", PROTOCOLS[form], "--data.traces", str(data / f"{form}.jsonl")]
        short = ["--training.steps", WARM_STEPS, "--data.eval_size", "32", "--prover.estimator", "none"]
        if not (run / "summary.json").exists():
            call(log, [*sft, *short, "--seed", str(seed), "--output-dir", str(run), "--overwrite"])


_running = set[subprocess.Popen[bytes]]()
_asked: list[int] = []  # the signals that asked to stop


@contextmanager
def passing_signals_on() -> Iterator[None]:
    """Within the block what runs is told SIGTERM and Ctrl-C, and nothing else begins."""

    def pass_on(number: int, _: object) -> None:
        _asked.append(number)
        for child in list(_running):
            child.send_signal(number)

    try:
        with handled_by(pass_on):
            yield
    finally:
        _asked.clear()


def call(log: Path, command: list[str]) -> None:
    """Run one of the commands in one thread; its output goes to `log`. Raises Interrupted where somebody asked to
    stop."""
    if _asked:
        raise Interrupted(EXIT_CODES[signal.Signals(_asked[0])])
    print(" ".join(command), flush=True)
    own = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "start_new_session": True}  # signals come by way of us
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen([*PROGRAM, *command], stdout=file, stderr=subprocess.STDOUT, **own) as child,
    ):
        _running.add(child)
        if _asked:  # since it was looked at
            child.send_signal(_asked[0])
        child.wait()
        _running.discard(child)
    if child.returncode and _asked:
        raise Interrupted(EXIT_CODES[signal.Signals(_asked[0])])
    if child.returncode:
        raise UserError("reproduction", " ".join(command), f"exit code {child.returncode}", f"See {log}.")


def warm_loss(runs: Path, form: str, seed: int) -> float:
    """Cross-entropy per learnt token, mean over all updates of a warm start: the height of its loss curve."""
    return float(np.mean([row["loss"] for row in read_run(runs / f"sft-{form}-seed{seed}").history]))


def progress(run: Run, runs: Path) -> float:
    """Of the first backtrack from wrong attempts of the base, the same for every policy, by the base's values; NaN for
    a run that broke down."""
    if run.lost:
        return math.nan
    model = run.config.model.model_copy(update={"name_or_path": str(run.path / "model")})
    parts = assemble(run.config.model_copy(update={"model": model}))
    demonstrations = read_demonstrations(runs / f"warm-seed{run.config.seed}" / "backtrack.jsonl")
    starts = histories(demonstrations, run.config.protocol, parts.dialogue)["given attempt"][:GIVEN]
    collector = parts.collector(run.config.protocol, with_values=False)
    prover = parts.prover(run.config.prover.model_copy(update={"policy": "reference"}))
    return progress_from(starts, collector, prover, run.config.evaluation.temperature, run.config.seed).mean


if __name__ == "__main__":
    run_main(main)
