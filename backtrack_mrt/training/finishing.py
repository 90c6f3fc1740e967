"""A run that is part of something larger: taken as it is if it has finished, else run, or gone on with."""

from __future__ import annotations

from pathlib import Path

from backtrack_mrt.config import Config, Existing, RunRequest
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.compared_runs import differences
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import Run, read_run
from backtrack_mrt.runs.inputs import check_inputs
from backtrack_mrt.runs.processes import tell
from backtrack_mrt.training.inputs import digests
from backtrack_mrt.training.train import train


def finished_run(request: RunRequest, base: Path | None = None) -> Run:
    """The run that is asked for, finished. `base`: the base's held-out trajectories of another run with this seed and
    evaluation. Raises UserError if a finished run with another config is in its place."""
    config, existing = request.config, request.existing
    run = RunDir(config.run_path)
    if existing == "overwrite" or not run.summary_path.exists():
        tell(f"{config.algo_label}, seed {config.seed}: {run.path}")
        how: Existing = "resume" if existing != "overwrite" and _resumable(run) else "overwrite"
        train(RunRequest(config, how, request.accept_changes), base_evaluation=base)
    else:
        problems = load_problem_sets(config.data, config.training.problems_per_step, config.grading)
        check_inputs(run.path, digests(config, problems), request.accept_changes)
    found = read_run(run.path)
    _check_unchanged(found, config)
    return found


def _resumable(run: RunDir) -> bool:
    """Whether an unfinished run left something to go on from."""
    return any(run.checkpoints.glob("step_*")) or run.collected.exists()


def _check_unchanged(run: Run, config: Config) -> None:
    """A finished run that is taken as it is must be the run that was asked for."""
    for section in config.resolved():
        ours, theirs = (c.resolved()[section] for c in (config, run.config))
        if section != "output_dir" and ours != theirs:
            reason = f"it was run with another {section}: {differences(ours, theirs)}"
            raise UserError("--output-dir", str(run.path), reason, "Delete that run, or choose another directory.")
