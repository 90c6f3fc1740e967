#!/usr/bin/env python
"""Rate the training problems of a config: V_0, how likely its model is right before the first turn.

    python scripts/rate_problems.py --config llama31_8b.yaml --out rated.jsonl
    python scripts/train_backtrack.py --config llama31_8b.yaml --data.train rated.jsonl --data.v0 0.1 0.9

Writes the problems with the columns v0 and rated_by. The same command goes on where it was interrupted. Takes the flags
of train_backtrack.py; `prover.estimator` is how V_0 is estimated, `data.train_size null` rates all problems.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from backtrack_mrt.cli.request import load_config
from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.policy.files import resolve
from backtrack_mrt.runs.progress import progress


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path)
    options, flags = parser.parse_known_args()
    config = load_config(flags, description=__doc__).config
    if options.out is None or options.out.suffix != ".jsonl" or not options.out.parent.is_dir():
        raise UserError("--out", options.out, "no place for the rated problems", "Name a .jsonl file.")
    if config.prover.estimator == "none":
        raise UserError("prover.estimator", "none", "V_0 needs an estimator", "Set it to likelihood or monte_carlo.")
    resolve(config.model)
    found = load_problem_sets(config.data.model_copy(update={"v0": None}))
    print("".join(f"{note}\n" for note in found.notes), end="")
    from backtrack_mrt.evaluation.prover_values import first_values, rate
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch

    parts = assemble(config)
    values = partial(first_values, protocol=config.protocol, dialogue=parts.dialogue, prover=parts.prover())
    with progress(len(found.train), "rate") as bar:
        v0 = rate(found.train, options.out, rater(config), values, config.engine.max_rows, bar.update)
    low, middle, high = np.quantile(v0, (0.25, 0.5, 0.75))
    print(f"{options.out}: {len(v0)} problems, V_0 quartiles {low:.3g}, {middle:.3g}, {high:.3g}")


def rater(config: Config) -> str:
    """Who rates: model, prompts and estimator."""
    prover = config.prover
    drawn = f" {prover.samples} samples, seed {config.seed}" if prover.estimator == "monte_carlo" else ""
    named = config.resolved()
    return f"{config.model.name_or_path}, {named['env']}/{named['prompts']}, {prover.estimator}{drawn}"


if __name__ == "__main__":
    run_main(main)
