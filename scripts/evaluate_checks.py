#!/usr/bin/env python
"""How well does a policy judge given attempts: find the error, name its step, return to the step before?

    python scripts/evaluate_checks.py --demonstrations FILE.jsonl --config … --model.name_or_path RUN/model
    python scripts/evaluate_checks.py --attempts LABELLED.jsonl --config … --model.name_or_path RUN/model

Demonstrations (`make_demonstrations.py`) tell which step is the first wrong one; labelled attempts only whether one is.
`data.eval_size` is how many are judged.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from backtrack_mrt.cli.request import load_config
from backtrack_mrt.data.demonstrations.attempts import read_attempts
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.rollouts.replay import read_demonstrations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--demonstrations", type=Path, metavar="FILE", help="demonstrations with right and wrong attempts"
    )
    what.add_argument("--attempts", metavar="SET", help="labelled attempts of other models")
    args, flags = parser.parse_known_args()
    config = load_config(flags).config
    if config.env != "backtrack":
        raise UserError("env", config.env, "it has no checks to evaluate", "Leave it at backtrack.")
    demonstrations = list(read_demonstrations(args.demonstrations)) if args.demonstrations else []
    attempts = read_attempts(args.attempts)[0] if args.attempts else []

    from backtrack_mrt.evaluation.error_detection import demonstrated, judge, labelled
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake must not wait for torch
    from backtrack_mrt.types import Sampling

    parts = assemble(config)
    cases = demonstrated(demonstrations, config.protocol, parts.dialogue)
    cases += labelled(attempts, config.protocol, parts.dialogue)
    drawn = random.Random(config.data.seed).sample(cases, min(len(cases), config.data.eval_size or len(cases)))
    sampling = Sampling(config.evaluation.temperature, stop_ids=parts.dialogue.chat.stop_ids)
    found = judge(drawn, parts.collector(config.protocol, with_values=False), sampling, config.seed)
    for name, estimate in found.items():
        print(f"{name:28} {estimate}  (n = {estimate.n})")


if __name__ == "__main__":
    run_main(main)
