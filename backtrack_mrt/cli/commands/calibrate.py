"""Calibrate the meta-prover: likelihood values against sampled ones.

Both estimate V on the prefixes of held-out rollouts. `prover.samples` is K and `data.eval_size` the number of rollouts.
"""

from __future__ import annotations

from argparse import Namespace

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.run_or_model import config_of

EXAMPLES = """\
  backtrack-mrt calibrate --data.eval signs/validation --data.eval_size 96 --prover.samples 256
  backtrack-mrt calibrate runs/RUN"""


def arguments(parser: Parser) -> None:
    parser.take_model()


def run(args: Namespace) -> None:
    config = config_of(args)
    from backtrack_mrt.data.loading import load_held_out

    problems, _ = load_held_out(config.data)
    from backtrack_mrt.evaluation.evaluate import evaluate
    from backtrack_mrt.evaluation.prover_values import calibrate
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch
    from backtrack_mrt.types import StopReason

    parts = assemble(config)
    collector = parts.collector(config.protocol, with_values=False)
    scored = evaluate(problems, collector, config.training.temperature, 1, config.seed).scored
    prefixes = [
        (parts.dialogue.forced(s.trajectory, j), s.trajectory.problem)
        for s in scored
        for j in range(len(s.trajectory.turns) + (s.trajectory.stop is not StopReason.VIOLATION))
    ]
    likelihood = parts.prover(config.prover.model_copy(update={"estimator": "likelihood"}))
    monte_carlo = parts.prover(config.prover.model_copy(update={"estimator": "monte_carlo"}))
    print("\n".join(calibrate(prefixes, likelihood, monte_carlo, config.prover.samples).lines()))
