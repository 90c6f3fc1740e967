"""Rate training problems: V_0, the chance before the first turn.

Writes the problems with the columns v0 and rated_by. The same command goes on where it was interrupted.
`prover.estimator` is how V_0 is estimated, `data.train_size null` rates all problems.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_file, typed_path
from backtrack_mrt.cli.run_or_model import config_of
from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError

EXAMPLES = """\
  backtrack-mrt rate --config llama31_8b.yaml --out rated.jsonl
  backtrack-mrt train --config llama31_8b.yaml --data.train rated.jsonl --data.v0 0.1 0.9"""


def arguments(parser: Parser) -> None:
    parser.take_model()
    parser.add_argument("--out", type=typed_path, required=True, metavar="FILE.jsonl", help="rated problems to write")


def run(args: Namespace) -> None:
    config = config_of(args, training=True)  # its problems
    if args.out.suffix != ".jsonl":
        raise UserError("--out", str(args.out), "no place for the rated problems", "Name a .jsonl file.")
    check_file("--out", args.out)
    if config.prover.estimator == "none":
        raise UserError("prover.estimator", "none", "V_0 needs an estimator", "Set it to likelihood or monte_carlo.")
    from backtrack_mrt.data.loading import load_problem_sets
    from backtrack_mrt.policy.files import find_model

    find_model(config.model)
    found = load_problem_sets(config.data.model_copy(update={"v0": None}), grader=config.grading)
    print("".join(f"{note}\n" for note in found.notes), end="")
    import numpy as np

    from backtrack_mrt.evaluation.prover_values import first_values, rate
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch
    from backtrack_mrt.runs.progress import progress

    parts = assemble(config)
    values = partial(first_values, protocol=config.protocol, dialogue=parts.dialogue, prover=parts.prover())
    with progress(len(found.train), "rate") as bar:
        v0 = rate(found.train, args.out, rater(config), values, config.engine.max_rows, bar.update)
    low, middle, high = np.quantile(v0, (0.25, 0.5, 0.75))
    print(f"{args.out}: {len(v0)} problems, V_0 quartiles {low:.3g}, {middle:.3g}, {high:.3g}")


def rater(config: Config) -> str:
    """Who rates: model, prompts and estimator."""
    prover = config.prover
    drawn = f" {prover.samples} samples, seed {config.seed}" if prover.estimator == "monte_carlo" else ""
    named = config.resolved()
    return f"{config.model.name_or_path}, {named['env']}/{named['prompts']}, {prover.estimator}{drawn}"
