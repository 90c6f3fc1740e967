"""Before a comparison: for every algorithm as many runs on the validation sets, and the best settings kept.

FOLDER/tuning/mrt-rl-1-seed10000/   a run of its own: a finished one is taken as it is, another goes on where it stopped
FOLDER/tuning.json                  what came of all of them (`backtrack_mrt.evaluation.tuning`)

A run that breaks down (numbers that are not finite, nothing to fit) counts as one that has lost all, and is shown.
Whatever else goes wrong, such as a mistake in a plug-in, says nothing about a setting: it ends the tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from backtrack_mrt.config import Config, RunRequest
from backtrack_mrt.config.trials import Trial, validation
from backtrack_mrt.data.catalogue import find_set, refuse_test_set
from backtrack_mrt.data.loading import is_task, load_held_out
from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.evaluation.tuning import Tried, Tuning
from backtrack_mrt.runs.alarms import alarms_of
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import Run
from backtrack_mrt.runs.processes import is_main, tell
from backtrack_mrt.training.finishing import finished_run


def check_validation(config: Config) -> None:
    """Raises UserError if a trial could see a problem that is reported: no validation sets, a test set among them, or
    one of data.eval."""
    field, sets = "data.validation", config.data.validation
    if not sets:
        raise UserError(field, sets, "there is nothing to choose settings on", "Name sets that are not in data.eval.")
    for spec in sets:
        if spec in config.data.eval or (is_task(spec) and spec.endswith("/test")):
            raise UserError(field, spec, "it is what the final runs are judged on", "Name another set.")
        if not is_task(spec):
            name, entry = find_set(spec, config.data.sets, field)
            refuse_test_set(name, entry, field)


def tune(trials: Mapping[str, Sequence[Trial]], request: RunRequest, folder: Path) -> tuple[dict[str, Trial], Tuning]:
    """Run all trials with all of the request's tuning seeds. Returns the best trial of each algorithm, and the record.
    Raises RunError if every trial of an algorithm broke down, UserError before the first for what is wrong with the
    validation sets."""
    check_validation(request.config)
    load_held_out(validation(request.config.data), request.config.grading, field="data.validation")
    found = Tuning(request.config.data.validation, ())
    for seed in request.tune_seeds:
        base: Path | None = None
        for algo, number, trial in ((a, n, t) for a, several in trials.items() for n, t in enumerate(several, 1)):
            row = Tried(algo, number, trial.settings, seed, f"tuning/{algo}-{number}-seed{seed}", None, None, {})
            config = trial.config.model_copy(update={"seed": seed, "output_dir": str(folder / row.run)}, deep=True)
            tell(f"tuning {algo}, {number} of {len(trials[algo])}: {trial}")
            row = _with_results(row, finished_run(RunRequest(config, request.existing, request.accept_changes), base))
            kept = RunDir(config.run_path).trajectories / "evaluation_base.jsonl"
            base = base or (kept if kept.exists() else None)
            found = Tuning(found.sets, [*found.tried, row])
            if is_main():
                found.write(folder)
    best: dict[str, Trial] = {}
    for algo, settings in trials.items():
        chosen = found.best(algo)
        if chosen is None:
            reason = f"every trial of {algo} broke down: {'; '.join(t.told[0] for t in found.tried if t.algo == algo)}"
            raise RunError(reason, "Try lower learning rates.")
        best[algo] = settings[chosen - 1]
        tell(f"kept for {algo}: {best[algo]}")
    return best, found


def _with_results(trial: Tried, run: Run) -> Tried:
    """The trial with what came of it."""
    tokens = run.summary["tokens"]["training"]
    if run.lost:
        return replace(trial, tokens=tokens, told=(run.lost,))
    return replace(
        trial,
        accuracy=run.mean("trained", "accuracy"),
        base=run.mean("base", "accuracy"),
        tokens=tokens,
        told=tuple(alarm.name for alarm in alarms_of(run.history, run.evaluations)),
    )
