"""Train several algorithms with several seeds on the same config, problems and order, at equal tokens.

The first algorithm trains for the config's steps; the tokens that it takes with a seed are the budget of the others
with that seed: the sampled ones, all of them (with the environment's and the meta-prover's), or once each (`--equal`).
`training.sampled_tokens` or `total_tokens` set one for all. Every run has its own directory in the comparison's, so an
interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backtrack_mrt.config import Ledger, RunRequest, TrainingSection
from backtrack_mrt.config.trials import Trial
from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.tuning import Tuning
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import Run
from backtrack_mrt.runs.processes import main_only, tell
from backtrack_mrt.training.finishing import finished_run


@dataclass(frozen=True)
class Failure:
    """A run that is missing, and why."""

    algo: str
    seed: int
    reason: str

    def __str__(self) -> str:
        return f"{self.algo}, seed {self.seed}: {self.reason}"


def train_and_compare(
    requests: Sequence[RunRequest], seeds: Sequence[int], folder: Path, tuning: Tuning | None = None
) -> Comparison:
    """Train every request with every seed, evaluate and compare. Finished runs are taken as they are, unless they are
    to be overwritten; the base is evaluated once per seed. tuning: how the requests' settings were chosen. A run that
    breaks down counts as one that is never right; one that fails otherwise is left out, with its seed, and is told."""
    first = requests[0].config.training
    ledgers = requests[0].equal or (("total",) if first.total_tokens else ("sampled",))
    runs: list[tuple[str, Run]] = []
    failed: list[Failure] = []
    algos = [request.config.algo_label for request in requests]
    finished = partial(compared, runs, algos, tuning, failed)
    for seed in seeds:
        reference, base = None, None
        for request in requests:
            label = request.config.algo_label
            for ledger in ledgers if reference else ledgers[:1]:
                path = folder / f"{label}{'-total' if ledger == 'total' and len(ledgers) > 1 else ''}-seed{seed}"
                update = {"training": equal_tokens(request.config.training, ledger, reference)}
                config = request.config.model_copy(update=update | {"seed": seed, "output_dir": str(path)}, deep=True)
                try:
                    run = finished_run(RunRequest(config, request.existing, request.accept_changes), base)
                except (UserError, RunError) as error:  # one run must not sink the others; a first mistake is told
                    if isinstance(error, UserError) and error.field != "algo" and not runs:
                        raise
                    failed.append(Failure(label, seed, str(error)))
                    tell(f"failed: {failed[-1]}")
                    continue
                base = RunDir(path).trajectories / "evaluation_base.jsonl"
                runs.append((label, run))
                reference = reference or (run if run.sampled_tokens and not run.lost else None)
                so_far(finished, folder)
    return finished()


def compared(
    runs: Sequence[tuple[str, Run]], algos: Sequence[str], tuning: Tuning | None, failed: Sequence[Failure]
) -> Comparison:
    """What has ended, side by side: the algorithms that have a run, with the seeds that all of them have. Raises
    RunError where nothing has."""
    there = [algo for algo in algos if any(label == algo for label, _ in runs)]
    if not there:
        raise RunError(f"no run has finished: {'; '.join(map(str, failed))}", "Mend the first of these.")
    seeds = defaultdict(set)
    for label, run in runs:
        seeds[label, run.ledger].add(run.config.seed)
    common = set.intersection(*seeds.values())
    kept = there if common else there[:1]
    chosen = [r for algo in kept for label, r in runs if label == algo and (not common or r.config.seed in common)]
    comparison = Comparison(chosen, tuning)
    comparison.failed = tuple(map(str, failed))
    comparison.left_out = _left_out(failed, seeds=set(comparison.seeds), shown=kept)
    return comparison


def _left_out(failed: Sequence[Failure], seeds: set[int], shown: Sequence[str]) -> str:
    """What is missing because runs failed, in a sentence; empty for nothing."""
    missing = defaultdict(set)
    for failure in failed:
        missing[failure.algo].add(failure.seed)
    found = [f"{algo} failed in {_seeds(several)}" for algo, several in missing.items()]
    dropped = set().union(*(several for algo, several in missing.items() if algo in shown)) - seeds
    if dropped:
        found.append(f"{_seeds(dropped)} left out for all, also where others have finished")
    return f" Not counted: {'; '.join(found)}." if found else ""


def _seeds(several: set[int]) -> str:
    return f"seed{'s' if len(several) > 1 else ''} {', '.join(map(str, sorted(several)))}"


@main_only
def so_far(made: Callable[[], Comparison], folder: Path) -> None:
    """The table of what has finished. Whatever goes wrong with it is told, and costs no training."""
    try:
        made().write(folder)
    except Exception as error:
        tell(f"no table yet: {error!r}")


def equal_tokens(training: TrainingSection, ledger: Ledger, reference: Run | None) -> TrainingSection:
    """The settings with the budget in that ledger: their own, else what the reference spent."""
    if reference is None:
        return training
    own = {"sampled": training.sampled_tokens, "total": training.total_tokens}[ledger]
    budget = own or reference.tokens(ledger)
    return training.model_copy(update={"sampled_tokens": None, "total_tokens": None, f"{ledger}_tokens": budget})


def with_best(requests: Sequence[RunRequest], best: Mapping[str, Trial]) -> list[RunRequest]:
    """The requests with the settings that were kept: on their own held-out sets."""
    found = []
    for request in requests:
        chosen = best[request.config.algo_label].config.model_copy(update={"data": request.config.data})
        found.append(RunRequest(chosen, request.existing, request.accept_changes, equal=request.equal))
    return found


def planned(requests: Sequence[RunRequest], trials: Mapping[str, Sequence[Trial]]) -> list[str]:
    """What a comparison will run, in lines."""
    first = requests[0]
    seeds, tuned = first.seeds or (first.config.seed,), first.tune_seeds
    lines = []
    for algo, settings in trials.items():
        lines.append(f"tuning {algo}: {len(settings) * len(tuned)} runs on {', '.join(first.config.data.validation)}")
        lines += [f"  {number}. {trial}" for number, trial in enumerate(settings, 1)]
    ledgers = max(len(first.equal), 1)
    count = len(seeds) * (1 + ledgers * (len(requests) - 1))
    algos = ", ".join(request.config.algo_label for request in requests)
    how = f" (others at equal {' and at equal '.join(first.equal)} tokens)" if first.equal else ""
    held_out = ", ".join(first.config.data.eval)
    return [*lines, f"final: {count} runs on {held_out}: {algos}, seeds {' '.join(map(str, seeds))}{how}"]
