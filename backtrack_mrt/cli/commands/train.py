"""Train with any of the algorithms, and report what was learned.

With --compare and --seeds several algorithms are trained side by side, at equal tokens; --tune first chooses their
settings, with as many runs for each of them on problems that are not reported.
"""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from backtrack_mrt.cli.command import PROGRAM, Parser
from backtrack_mrt.cli.request import comparison_requests, read_request, trials
from backtrack_mrt.config import RunRequest
from backtrack_mrt.errors import Interrupted, RunError, UserError
from backtrack_mrt.runs import environment, interrupts, processes
from backtrack_mrt.runs.durable import remove
from backtrack_mrt.runs.kinds import COMMAND, holds_run, not_to_write_into, write_command

EXAMPLES = """\
  backtrack-mrt train --algo mrt-rl                                # the embedded model, minutes on a CPU
  backtrack-mrt train --algo mrt-rl --compare rise star grpo --seeds 0 1 2
  backtrack-mrt train --compare grpo --training.sampled_tokens 240000 --tune training.learning_rate 3e-4 1e-3
  backtrack-mrt train --algo mrt-rl --config smollm2_135m.yaml     # a real model
  backtrack-mrt train --config llama31_8b.yaml --dry-run h100      # what it would take; loads no weights
  backtrack-mrt train --output-dir runs/mine --resume              # go on where it stopped"""


def arguments(parser: Parser) -> None:
    parser.take_settings(help=False)


def run(args: Namespace) -> None:
    described = f"{__doc__}\nexamples:\n{EXAMPLES}"
    request = read_request(args.settings, description=described, prog="backtrack-mrt train")
    if request.dry_run:
        _plan(request, args.settings)
    elif request.compare or request.seeds or request.tune:
        _compare(request, args.settings)
    else:
        _train(request)


def _plan(request: RunRequest, flags: list[str]) -> None:
    """What the run will take, if it would start; of a comparison, the first algorithm's first run, and the list of
    all."""
    from backtrack_mrt.training.launch import check_launch
    from backtrack_mrt.training.plan import plan
    from backtrack_mrt.training.roofline import device

    assert request.dry_run is not None
    with _meeting_nobody():
        check_launch(request.config)
    found = plan(request.config, device(request.dry_run))
    lines = found.lines()
    if request.compare or request.seeds or request.tune:
        from backtrack_mrt.training.compare import planned
        from backtrack_mrt.training.tune import check_validation

        requests = comparison_requests(flags)
        tried = trials(flags, requests) if request.tune else {}
        if tried:
            check_validation(request.config)
        lines += planned(requests, tried)
    if processes.is_main():
        print("\n".join(lines))
    if not found.fits:
        sys.exit(1)


@contextmanager
def _meeting_nobody() -> Iterator[None]:
    """Within the block a plan for many processes needs no place where they meet."""
    added = {"MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()
    os.environ.update(dict.fromkeys(added, ""))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def telling_how_to_go_on(path: Path, command: str | None = None) -> Iterator[None]:
    """Where the block is interrupted, say what was saved and the command that goes on: that of the run, or another."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        if processes.is_main():
            there = (path / "config.yaml").is_file()
            again = command or (f"{PROGRAM} train --resume {shlex.quote(str(path))}" if there else "the same command")
            print(f"saved: {_saved(path, several=command is not None)}\ngo on with: {again}", file=sys.stderr)
        raise


def _saved(path: Path, several: bool) -> str:
    """What there is of a run, or of several in a folder of their own."""
    if not path.is_dir():
        return "nothing"
    if several:
        done = len(list(path.rglob("summary.json")))
        return f"{path}, {done} finished run{'' if done == 1 else 's'} and what there was of the one under way"
    steps = sorted(int(place.name.partition("_")[2]) for place in (path / "checkpoints").glob("step_*"))
    return f"{path}, up to step {steps[-1]}" if steps else f"{path}, no step yet"


def repeated(flags: Sequence[str]) -> list[str]:
    """The flags of a comparison that go on with it, wherever it is: without --output-dir, and --overwrite, which would
    start it anew."""
    kept: list[str] = []
    left_out = False
    for flag in flags:
        if flag.startswith("--"):
            left_out = flag.partition("=")[0].replace("_", "-") in ("--output-dir", "--overwrite")
        if not left_out:
            kept.append(flag)
    return kept


@contextmanager
def noted(folder: Path, words: Sequence[str]) -> Iterator[None]:
    """Keep the command of a comparison in its folder, unless a mistake in it leaves nothing else there."""
    if processes.is_main():
        write_command(folder, words)
    try:
        yield
    except UserError:
        if processes.is_main() and [place.name for place in folder.iterdir()] == [COMMAND]:
            remove(folder)
        raise


def _train(request: RunRequest) -> None:
    with environment.importing():
        from backtrack_mrt.training.train import train  # late: a mistake in the config must not wait for torch

    with telling_how_to_go_on(request.config.run_path):
        result = train(request)
    if processes.is_main():
        Console().print(result.table())
        print(f"run directory: {request.config.run_path} (report.html, numbers: summary.json)")
    processes.leave()


def _compare(first: RunRequest, flags: list[str]) -> None:
    """Train several algorithms or seeds and put them side by side."""
    requests = comparison_requests(flags)
    tried = trials(flags, requests) if first.tune else {}
    algos = [request.config.algo_label for request in requests]
    named = first.config.output_dir is not None
    folder = first.config.run_path if named else Path(f"runs/{first.config.task_label}-{'-'.join(algos)}")
    if holds_run(folder):
        raise not_to_write_into("--output-dir", folder)
    with environment.importing():
        from backtrack_mrt.reports.build import report_comparison
        from backtrack_mrt.training.compare import train_and_compare, with_best
        from backtrack_mrt.training.tune import tune

    words = ["train", *repeated(flags)]
    seeds, again = first.seeds or (first.config.seed,), shlex.join([PROGRAM, *words, "--output-dir", str(folder)])
    tuning = None
    with telling_how_to_go_on(folder, again), noted(folder, words), interrupts.deferred():
        if tried:
            best, tuning = tune(tried, first, folder)
            requests = with_best(requests, best)
        comparison = train_and_compare(requests, seeds, folder, tuning)
    if processes.is_main():
        comparison.write(folder)
        report_comparison(comparison, folder)
        Console().print(comparison.table())
        print(comparison.headline())
        print(f"comparison: {folder} (report.html, comparison.md, comparison.json)")
    if comparison.failed:
        told = "; ".join(comparison.failed).rstrip(".")
        remedy = f"Mend that, then, with --accept-changes if a file of yours has changed: {again}"
        raise RunError(f"{len(comparison.failed)} runs failed: {told}", remedy)
    processes.leave()
