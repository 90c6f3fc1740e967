#!/usr/bin/env python
"""What the meta-prover costs: the time of an MRT step over that of a GRPO step with the very same rollouts.

Steps come in pairs with equal problems and seeds (and a learning rate too small to matter), one with the prover's
values and one without, in alternating order; the first pair warms up. Processor seconds (wall seconds on a GPU). Takes
the flags of `backtrack-mrt train`; `training.steps` counts both.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from timing import check_steps, count_processor_time, spread

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.data.order import training_order
from backtrack_mrt.errors import run_main
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.types import Problem

if TYPE_CHECKING:
    from backtrack_mrt.rollouts.assembly import Assembly
    from backtrack_mrt.rollouts.collector import Collector


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--training.learning_rate", "1e-12", "--training.saved_rollouts", "0", "--output-dir", folder]
        config = read_request([*sys.argv[1:], *flags], description=__doc__).config
        check_steps(config.training.steps, warm_up=3)  # a pair, and half a pair

        from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch
        from backtrack_mrt.rollouts.collector import Collected, Collector

        count_processor_time()
        calls = count()

        class Alternating(Collector):
            """The same rollouts twice, once with values."""

            def begin(
                self, problems: Sequence[Problem], seeds: Sequence[int], *a: Any, **k: Any
            ) -> Callable[[], Collected]:
                pair, second = divmod(next(calls), 2)
                plain = Collector(**vars(self))
                collector = plain if (pair + second) % 2 == 0 else replace(plain, prover=None)
                return collector.begin(problems, trajectory_seeds(0, pair, len(seeds)), *a, **k)

        parts = assemble(config)
        batch = config.training.problems_per_step
        problems = training_order(load_problem_sets(config.data, batch).train, config)
        paired = [p for i in range(0, len(problems) // 2, batch) for p in 2 * problems[i : i + batch]]
        collector = Alternating(**vars(parts.collector(config.protocol, with_values=True)))
        rows = metrics_of_steps(parts, paired, collector)
        ratios, shares = [], []
        for first, second in zip(rows[2::2], rows[3::2], strict=False):  # the first pair warms up
            mrt, grpo = (first, second) if first["time/prover"] > second["time/prover"] else (second, first)
            ratios.append(mrt["time/step"] / grpo["time/step"])
            shares.append(mrt["time/prover"] / mrt["time/step"])
        print(f"pairs of steps of {batch * config.training.group_size} trajectories each")
        print(f"MRT step / GRPO step: {spread(ratios)}")
        print(f"meta-prover's share of the MRT step: {spread(shares)}")


def metrics_of_steps(parts: Assembly, problems: Sequence[Problem], collector: Collector) -> list[dict[str, Any]]:
    """What the trainer logs while it trains on these problems, one row per step."""
    from backtrack_mrt.algos.grpo import Grpo
    from backtrack_mrt.runs import environment
    from backtrack_mrt.runs.directory import RunDir
    from backtrack_mrt.training.rl import PolicyTrainer
    from backtrack_mrt.training.trainer_setup import Setup

    environment.prepare()  # both as every training does
    environment.settle()
    config = parts.config.model_copy(update={"algorithm": Grpo()})  # which trains no forced answers along
    run = RunDir.create(config, "overwrite")
    setup = Setup(parts.model, parts.tokenizer, config, run)
    PolicyTrainer(setup, problems=problems, collector=collector).fit()
    return run.metrics()


def rows_of_step(config: Config, number: int = 1) -> tuple[list[Problem], list[int]]:
    """The rows of a step on the first problems, each as often as its group has members, and their seeds."""
    count = config.training.problems_per_step
    problems = load_problem_sets(config.data, count).train[:count]
    rows = [problem for problem in problems for _ in range(config.training.group_size)]
    return rows, trajectory_seeds(config.seed, number, len(rows))


if __name__ == "__main__":
    run_main(main)
