#!/usr/bin/env python
"""Calibrate the meta-prover: likelihood against monte_carlo on the prefixes of held-out rollouts.

Takes the flags of train_backtrack.py; `prover.samples` is K and `data.eval_size` the number of rollouts.
"""

from __future__ import annotations

import sys

from backtrack_mrt.cli.request import load_config
from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.errors import run_main


def main() -> None:
    config = load_config(sys.argv[1:], description=__doc__).config
    data = config.data
    problems = load_problems(data.eval, data.eval_size, data.seed, field="data.eval", sets=data.sets)
    from backtrack_mrt.evaluation.calibration import calibrate
    from backtrack_mrt.evaluation.evaluate import evaluate
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch
    from backtrack_mrt.types import Sampling, StopReason

    parts = assemble(config)
    sampling = Sampling(config.training.temperature, stop_ids=parts.dialogue.chat.stop_ids)
    scored = evaluate(problems, parts.collector(config.protocol, with_values=False), sampling, 1, config.seed)
    prefixes = [
        (parts.dialogue.forced(s.trajectory, j), s.trajectory.problem)
        for s in scored
        for j in range(len(s.trajectory.turns) + (s.trajectory.stop is not StopReason.VIOLATION))
    ]
    likelihood = parts.prover(config.prover.model_copy(update={"estimator": "likelihood"}))
    monte_carlo = parts.prover(config.prover.model_copy(update={"estimator": "monte_carlo"}))
    print("\n".join(calibrate(prefixes, likelihood, monte_carlo, config.prover.samples).lines()))


if __name__ == "__main__":
    run_main(main)
