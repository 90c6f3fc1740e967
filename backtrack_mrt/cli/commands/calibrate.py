"""Compare every estimator of V with sampled answers.

All are about the same prefixes of held-out rollouts: `data.eval_size` problems, and `prover.samples` answers for each
prefix, drawn without any help, right if training pays for them. `auto` and `monte_carlo` are shown with 8 answers of
their own.
"""

from __future__ import annotations

from argparse import Namespace

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.run_or_model import config_of
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.progress import progress

EXAMPLES = """\
  backtrack-mrt calibrate --data.eval signs/validation --data.eval_size 96 --prover.samples 256
  backtrack-mrt calibrate runs/RUN --prover.samples 64"""
_SAMPLES = 8  # of the estimators that are looked at


def arguments(parser: Parser) -> None:
    parser.take_model()


def run(args: Namespace) -> None:
    config = config_of(args)
    from backtrack_mrt.data.loading import load_held_out

    problems, _ = load_held_out(config.data, config.grading)
    from backtrack_mrt.evaluation.calibration import OneTokenisation, calibrate, prefixes_of
    from backtrack_mrt.evaluation.evaluate import evaluate
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch

    parts = assemble(config)
    collector = parts.collector(config.protocol, with_values=False)
    with progress(len(problems), "rollouts") as bar:
        scored = evaluate(problems, collector, config.training.temperature, config.seed, bar.update).scored
    prefixes = [prefix for each in prefixes_of(parts, scored) for prefix in each]
    if not prefixes:
        reason = f"no prefix leaves room for an answer in the context of {parts.engine.context_length} tokens"
        raise UserError("model.name_or_path", config.model.name_or_path, reason, "Take a model with a longer context.")
    own, asked = {"samples": _SAMPLES, "temperature": 1.0, "top_p": 1.0}, config.prover
    provers = {
        "one tokenisation": OneTokenisation(parts.dialogue, parts.engine, asked.policy),
        **{
            name: parts.prover(asked.model_copy(update=own | {"estimator": name}), parts.paying)
            for name in ("likelihood", "auto", "monte_carlo")
        },
    }
    print(f"{len(prefixes)} prefixes of {len(problems)} problems, {asked.samples} sampled answers each")
    with progress(len(prefixes) * asked.samples, "sampled answers") as bar:
        seed = config.seed + 1
        reference = parts.sampled_prover(asked, parts.paying, helped=False, seed=seed, on_answers=bar.update)
        sampled = reference.prefix_values(prefixes)
    for bias in calibrate(prefixes, provers, sampled):
        print(bias.line())
