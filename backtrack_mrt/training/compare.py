"""Train several algorithms with several seeds on the same config, problems and order, at equal sampled tokens.

The first algorithm trains for the config's steps; the tokens that it samples with a seed are the budget of the others
with that seed (`training.sampled_tokens` sets one for all). Every run has its own directory in the comparison's, so an
interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backtrack_mrt.config import Config, Existing, RunRequest
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.comparison import Comparison, differences
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import Run, read_run
from backtrack_mrt.runs.processes import tell
from backtrack_mrt.training.train import train


def train_and_compare(requests: Sequence[RunRequest], seeds: Sequence[int], folder: Path) -> Comparison:
    """Train every request with every seed, evaluate and compare. Finished runs are taken as they are, unless they are
    to be overwritten; the base is evaluated once per seed."""
    runs = []
    for seed in seeds:
        budget, base = None, None
        for request in requests:
            path = folder / f"{request.config.algo_label}-seed{seed}"
            finished = RunDir(path).summary_path.exists() and request.existing != "overwrite"
            training = request.config.training
            training = training.model_copy(update={"sampled_tokens": training.sampled_tokens or budget})
            config = request.config.model_copy(
                update={"seed": seed, "output_dir": str(path), "training": training}, deep=True
            )
            if not finished:
                tell(f"{config.algo_label}, seed {seed}: {path}")
                existing: Existing = "overwrite"
                if request.existing != "overwrite" and _resumable(config):
                    existing = "resume"
                train(RunRequest(config, existing, request.accept_changes), base_evaluation=base)
            run = read_run(path)
            _check_unchanged(run, config)
            runs.append(run)
            budget = budget or run.sampled_tokens or None
            base = RunDir(path).trajectories / "evaluation_base.jsonl"
    algos = [request.config.algo_label for request in requests]
    return Comparison([run for algo in algos for run in runs if run.config.algo_label == algo])


def _resumable(config: Config) -> bool:
    """Whether an unfinished run left something to go on from."""
    run = RunDir(config.run_path)
    return any(run.checkpoints.glob("step_*")) or run.collected.exists()


def _check_unchanged(run: Run, config: Config) -> None:
    """A finished run that is taken as it is must be the run that was asked for."""
    for section in config.resolved():
        ours, theirs = (c.resolved()[section] for c in (config, run.config))
        if section != "output_dir" and ours != theirs:
            reason = f"it was run with another {section}: {differences(ours, theirs)}"
            raise UserError("--output-dir", str(run.path), reason, "Delete that run, or choose another directory.")
