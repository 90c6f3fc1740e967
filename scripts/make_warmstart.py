#!/usr/bin/env python
"""Writes warm-start data out of a model's own rollouts: a data set with a card, one JSONL file per form.

    python scripts/make_warmstart.py --out warm [--config FILE] [--SECTION.FIELD VALUE]
    python scripts/make_warmstart.py --out warm --attempts ATTEMPTS.jsonl   # attempts of other models, labelled
    python scripts/train_backtrack.py --algo sft --data.traces warm/backtrack.jsonl warm/correct.jsonl

The problems are those of training, `training.steps` × `training.problems_per_step` of them, with
`training.group_size` attempts each. Of a wrong attempt the meta-prover chooses the step to return to; a right
continuation from there is drawn. What was drawn is kept in the folder, by model, config and seed: an interrupted or
repeated call goes on with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backtrack_mrt.cli.request import load_config
from backtrack_mrt.errors import UserError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="data set to write")
    parser.add_argument("--attempts", metavar="SET", help="labelled attempts to start from, in place of own ones")
    parser.add_argument(
        "--branches", type=int, default=4, help="checks and continuations drawn at a time (default: %(default)s)"
    )
    args, flags = parser.parse_known_args()
    config = load_config(flags).config
    if config.env != "backtrack":
        raise UserError("env", config.env, "stitching starts from backtracking rollouts", "Leave it at backtrack.")
    if config.prover.estimator == "none":
        raise UserError("prover.estimator", "none", "values choose the step to return to", "Set it to likelihood.")
    if args.branches < 1:
        raise UserError("--branches", args.branches, "not a number of rollouts", "Use 1 or more.")

    from backtrack_mrt.training.warm_start_files import write_warm_start  # late: a mistake must not wait for torch

    print(write_warm_start(config, args.out, args.branches, args.attempts))


if __name__ == "__main__":
    run_main(main)
