#!/usr/bin/env python
"""Writes warm-start data out of a model's own rollouts: backtrack.jsonl, star.jsonl and rise.jsonl in a folder.

    python scripts/make_warmstart.py --out warm [--config FILE] [--SECTION.FIELD VALUE]
    python scripts/train_backtrack.py --algo sft --data.traces warm/backtrack.jsonl

The problems are those of training, `training.steps` × `training.problems_per_step` of them, with
`training.group_size` rollouts each. A problem is used if it had a wrong and a right attempt that share some beginning.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backtrack_mrt.cli import load_config
from backtrack_mrt.errors import UserError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write the three files")
    args, flags = parser.parse_known_args()
    config = load_config(flags).config
    if config.env != "backtrack":
        raise UserError("env", config.env, "stitching starts from backtracking rollouts", "Leave it at backtrack.")

    from backtrack_mrt.assembly import assemble  # late: a mistake in the config must not wait for torch
    from backtrack_mrt.collection import groups_by_problem
    from backtrack_mrt.data.loading import load_problem_sets
    from backtrack_mrt.data.solved_demo import write_demonstrations
    from backtrack_mrt.progress import progress
    from backtrack_mrt.rollout import trajectory_seeds
    from backtrack_mrt.stitching import stitched
    from backtrack_mrt.train import training_order
    from backtrack_mrt.types import Sampling

    problems = training_order(load_problem_sets(config.data, config.training.problems_per_step).train, config)
    rows = [problem for problem in problems for _ in range(config.training.group_size)]
    parts = assemble(config)
    collector = parts.collector(config.protocol, with_values=False)
    sampling = Sampling(config.training.temperature, stop_ids=parts.dialogue.chat.stop_ids)
    with progress(len(rows), "rollouts") as bar:
        scored = collector.collect(rows, trajectory_seeds(config.seed, 0, len(rows)), sampling, bar.update)
    groups = groups_by_problem(scored)
    args.out.mkdir(parents=True, exist_ok=True)
    for form, made in stitched(groups, config.seed).items():
        path = args.out / f"{form}.jsonl"
        write_demonstrations(path, made)
        print(f"{path}: {len(made)} demonstrations of {len(groups)} problems")


if __name__ == "__main__":
    run_main(main)
