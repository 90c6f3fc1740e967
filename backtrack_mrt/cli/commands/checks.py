"""Measure whether a policy finds errors in given attempts.

Demonstrations tell which step is the first wrong one; labelled attempts only whether one is. `data.eval_size` is how
many are judged. --finish plays on from the attempts of demonstrations, and from the backtracks that are made of them:
how many end right? In --env inline that is all there is.
"""

from __future__ import annotations

import random
from argparse import Namespace

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import typed_path
from backtrack_mrt.cli.run_or_model import config_of
from backtrack_mrt.errors import UserError

EXAMPLES = """\
  backtrack-mrt checks runs/RUN --demonstrations traces.jsonl      # of `backtrack-mrt demonstrate`
  backtrack-mrt checks runs/RUN --demonstrations traces.jsonl --finish
  backtrack-mrt checks MODEL --config smollm2_135m.yaml --attempts LABELLED.jsonl"""


def arguments(parser: Parser) -> None:
    parser.take_model()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--demonstrations", type=typed_path, metavar="FILE", help="demonstrations with right and wrong attempts"
    )
    what.add_argument("--attempts", metavar="SET", help="labelled attempts of other models")
    parser.add_argument("--finish", action="store_true", help="also play on from given attempts and given backtracks")


def run(args: Namespace) -> None:
    config = config_of(args)
    inline = config.env == "inline"
    if not inline and config.env != "backtrack":
        raise UserError("env", config.env, "it has no checks to evaluate", "Leave it at backtrack, or take inline.")
    if inline and args.attempts:
        reason = "labelled attempts have no backtrack to go on from"
        raise UserError("--attempts", args.attempts, reason, "Give --demonstrations.")
    from backtrack_mrt.data.demonstrations.attempts import read_attempts
    from backtrack_mrt.data.demonstrations.files import read_demonstrations
    from backtrack_mrt.data.demonstrations.inline import in_one_message

    demonstrations = list(read_demonstrations(args.demonstrations)) if args.demonstrations else []
    demonstrations = [in_one_message(each) if inline else each for each in demonstrations]
    attempts = read_attempts(args.attempts)[0] if args.attempts else []

    from backtrack_mrt.evaluation.error_detection import demonstrated, detection, labelled
    from backtrack_mrt.evaluation.given_history import histories, right_from
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake must not wait for torch

    parts = assemble(config)
    cases = [] if inline else demonstrated(demonstrations, config.protocol, parts.dialogue)
    cases += labelled(attempts, config.protocol, parts.dialogue)
    drawn = random.Random(config.data.seed).sample(cases, min(len(cases), config.data.eval_size or len(cases)))
    collector = parts.collector(config.protocol, with_values=False)
    found = dict(detection(drawn, collector, config.evaluation.temperature, config.seed))
    if inline or args.finish:
        for given, starts in histories(demonstrations, config.protocol, parts.dialogue).items():
            some = starts[: config.data.eval_size]
            found[f"right, {given}"] = right_from(some, collector, config.evaluation.temperature, config.seed)
    for name, estimate in found.items():
        print(f"{name:28} {estimate}  (n = {estimate.n})")
