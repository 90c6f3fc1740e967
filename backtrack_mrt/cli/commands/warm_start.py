"""Write warm-start data out of a model's own rollouts.

It is a data set with a card, one JSONL file per form. The problems are those of training, `training.steps` ×
`training.problems_per_step` of them, with `training.group_size` attempts each. Of a wrong attempt the meta-prover
chooses the step to return to; a right continuation from there is drawn. What was drawn is kept in the folder, by
model, config and seed: an interrupted or repeated call goes on with it.
"""

from __future__ import annotations

from argparse import Namespace

from backtrack_mrt.cli.command import Parser, natural
from backtrack_mrt.cli.places import typed_path
from backtrack_mrt.cli.run_or_model import config_of
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.kinds import holds_comparison, holds_run, not_to_write_into

EXAMPLES = """\
  backtrack-mrt warm-start runs/RUN --out warm
  backtrack-mrt warm-start --config smollm2_135m.yaml --out warm
  backtrack-mrt warm-start --out warm --attempts ATTEMPTS.jsonl    # attempts of other models, labelled
  backtrack-mrt train --algo sft --data.traces warm/backtrack.jsonl warm/correct.jsonl"""


def arguments(parser: Parser) -> None:
    parser.take_model()
    add = parser.add_argument
    add("--out", type=typed_path, required=True, metavar="FOLDER", help="data set to write")
    add("--attempts", metavar="SET", help="labelled attempts to start from, in place of own ones")
    add("--branches", type=natural, default=4, help="checks and continuations drawn at a time (default: %(default)s)")


def run(args: Namespace) -> None:
    config = config_of(args, training=True)  # its problems
    if holds_run(args.out) or holds_comparison(args.out):
        raise not_to_write_into("--out", args.out)
    if config.env != "backtrack":
        raise UserError("env", config.env, "stitching starts from backtracking rollouts", "Leave it at backtrack.")
    if config.prover.estimator == "none":
        raise UserError("prover.estimator", "none", "values choose the step to return to", "Set it to likelihood.")

    from backtrack_mrt.training.warm_start_files import write_warm_start  # late: a mistake must not wait for torch

    print(write_warm_start(config, args.out, args.branches, args.attempts))
