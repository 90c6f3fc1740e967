"""A run that is part of something larger: taken as it is if it has finished or broken down, else run, or gone on
with."""

from __future__ import annotations

from pathlib import Path

from backtrack_mrt.config import Config, Existing, RunRequest
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import Collapsed, UserError
from backtrack_mrt.evaluation.compared_runs import differing_sections
from backtrack_mrt.runs import interrupts, processes
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import Run, ended_run, has_broken_down, read_run
from backtrack_mrt.runs.inputs import check_inputs
from backtrack_mrt.runs.processes import tell
from backtrack_mrt.training.inputs import digests
from backtrack_mrt.training.train import train


def finished_run(request: RunRequest, base: Path | None = None) -> Run:
    """The run that is asked for, finished, or broken down (`Run.lost`), which is noted and is as final: only where
    changes are accepted it is done again, from its beginning. `base`: the base's held-out trajectories of another run
    with this seed and evaluation. Raises UserError if a finished run with another config is in its place, Interrupted
    before a run if somebody asked to stop."""
    interrupts.common_safe_point()
    config, existing = request.config, request.existing
    run = RunDir(config.run_path)
    earlier = ended_run(run.path) if existing != "overwrite" else None
    again = earlier is not None and earlier.lost and (request.accept_changes or any(_others(config, earlier)))
    if earlier is None or again:
        tell(f"{config.algo_label}, seed {config.seed}: {run.path}")
        left_something = any(run.checkpoints.glob("step_*")) or run.collected.exists()  # to go on from
        how: Existing = "resume" if existing != "overwrite" and left_something and not again else "overwrite"
        try:
            train(RunRequest(config, how, request.accept_changes), base_evaluation=base)
        except Collapsed as error:
            has_broken_down(run.path, str(error))
            tell(f"{config.algo_label}, seed {config.seed} broke down: {error}")
        processes.wait()
    else:
        problems = load_problem_sets(config.data, config.training.problems_per_step, config.grading)
        check_inputs(run.path, digests(config, problems), request.accept_changes)
    found = ended_run(run.path) or read_run(run.path)
    for section, told in _others(config, found):  # it must be the run that was asked for
        reason = f"it was run with another {section}: {told}"
        raise UserError("--output-dir", str(run.path), reason, "Delete that run, or choose another directory.")
    return found


def _others(config: Config, run: Run) -> list[tuple[str, str]]:
    """The sections in which the run's config is another, and how."""
    return [both for both in differing_sections(config, run.config) if both[0] != "output_dir"]
