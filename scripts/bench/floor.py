#!/usr/bin/env python
"""How far each part of a step is from what this machine could do at best.

    python scripts/bench/floor.py --training.steps 4                                   # the embedded model
    python scripts/bench/floor.py --config smollm2_135m.yaml --model.name_or_path models/smollm2-135m-instruct

Measures the machine (a product of matrices, a copy of memory), trains some steps with a learning rate too small to
matter, and divides the processor seconds of each part by its floor: the operations of its tokens at the speed of the
product, or the bytes that decoding reads at the speed of the copy, whichever takes longer. The first step warms up.
Takes the flags of `backtrack-mrt train`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from step import metrics_of_steps
from timing import check_steps, count_processor_time, spread

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.data.order import training_order
from backtrack_mrt.errors import run_main
from backtrack_mrt.training import roofline
from backtrack_mrt.training.roofline import PACK, Clock, overhead


@dataclass(frozen=True)
class Part:
    """One part of the step: the tokens that it handled, its seconds (of the processor; on a GPU the wall's), those that
    a plan gives it, and those at the roofline."""

    name: str
    tokens: float
    seconds: float
    planned: float
    least: float

    def line(self) -> str:
        return (
            f"{self.name:<12}{self.tokens:>12,.0f} tokens {self.seconds:>9.2f} s {self.tokens / self.seconds:>10,.0f} "
            f"tokens/s {self.least / self.seconds:>7.1%} of the roofline; planned {self.planned:.2f} s"
        )


def parts_of(row: Mapping[str, Any], config: Config, force_tokens: int, clock: Clock) -> list[Part]:
    """The parts of a step that the trainer logged as `row`. force_tokens: of a forced answer's suffix."""
    training, at_once, prover = config.training, config.engine.max_rows, config.prover
    rows, sampled, known = training.rows, row["tokens/step_sampled"], row["tokens/step_env"]
    length = (sampled + known) / rows
    asked = rows * row["turns"] + training.problems_per_step
    suffixes, answers = asked * force_tokens, row["tokens/step_prover"]
    passes = 2 + config.model.gradient_checkpointing + config.model.full_finetuning
    batches = ceil(rows / training.micro_batch_size)

    def valuing(c: Clock) -> float:
        if answers < asked * prover.max_answer_tokens:  # read along, not sampled
            return c.reading(suffixes + answers, length / 2, batches=ceil((suffixes + answers) / PACK))
        drawn = round(answers / prover.max_answer_tokens)
        return c.reading(suffixes, length, batches=1) + c.decoding(drawn, at_once, prover.max_answer_tokens, length)

    def update(c: Clock) -> float:
        return c.reading(rows * length, length / 2, passes, batches) + batches * c.overhead.batch

    works = {
        "rollout": (sampled, lambda c: c.decoding(rows, at_once, sampled / rows, length / 2)),
        "meta-prover": (suffixes + answers, valuing),
        "update": (rows * length, update),
    }
    return [
        Part(name, tokens, row[f"time/{name.removeprefix('meta-')}"], work(clock), work(clock.ideal))
        for name, (tokens, work) in works.items()
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["--training.learning_rate", "1e-12", "--training.saved_rollouts", "0", "--output-dir", folder]
        config = read_request([*sys.argv[1:], *fixed], description=__doc__).config
        check_steps(config.training.steps, warm_up=1)
        from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch
        from backtrack_mrt.training.plan import plan

        device = roofline.device(roofline.HERE)
        print(f"{device.name}: {device.float32 / 1e9:.0f} Gflop/s in float32, {device.bandwidth / 1e9:.1f} GB/s")
        count_processor_time()
        parts = assemble(config)
        problems = training_order(load_problem_sets(config.data, config.training.problems_per_step).train, config)
        collector = parts.training_collector()
        rows = metrics_of_steps(parts, problems, collector)[1:]
        clock = Clock(plan(config, device).sizes.network, device, config.model.dtype, overhead(device))
        steps = [parts_of(row, config, parts.dialogue.force_tokens, clock) for row in rows]
        for same in zip(*steps, strict=True):
            seconds, least = (sum(getattr(part, name) for part in same) / len(same) for name in ("seconds", "least"))
            ratios = [part.seconds / part.least for part in same]
            print(f"{same[0].name:<12}{seconds:7.2f} s, floor {least:6.2f} s: × {spread(ratios)}")


if __name__ == "__main__":
    run_main(main)
