#!/usr/bin/env python
"""The same work by others: stock `generate`, transformers' continuous batching, stock TRL, math-verify, verifiers.

    python scripts/bench/peers.py                                             # the embedded model
    python scripts/bench/peers.py --parts grading --data ../shared/data/math500.jsonl

    rollout   greedy turns of equal length over histories that grow, the very same tokens for all
    update    one step of GRPO on the rows of one rollout of the config, in micro-batches of --micro rows
    grading   integers right and wrong; the golds of --data against themselves and against the next problem's

Processor seconds of this process and its workers, the sides in turn; a side that is not installed is left out, and said
so. Writes the table of docs/speed.md. Takes flags of `backtrack-mrt train`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from engine_work import flags as engine_flags
from engine_work import load
from rollout import Rollouts, roll_engine, roll_generate, synthetic
from step import rows_of_step
from timing import Times, count_processor_time

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.errors import run_main
from backtrack_mrt.grading import MathGrader
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.types import TokenIds

PARTS = ("rollout", "update", "grading")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed")
    parser.add_argument("--rows", type=int, default=64, help="trajectories of the rollout")
    parser.add_argument("--micro", type=int, nargs="+", default=[16, 64], help="rows of the update's micro-batches")
    parser.add_argument("--data", type=Path, help="problem set whose golds are graded, JSONL with `answer`")
    options, settings = parser.parse_known_args()
    config = read_request(settings).config
    torch.set_num_threads(1)
    count_processor_time()
    print("| work | side | time | of ours |\n|---|---|---|---|")
    if "rollout" in options.parts:
        table("rollout", Times.of_ways(rollouts(options, config), options.rounds))
    if "update" in options.parts:
        updates(config, options.rounds, options.micro)
    if "grading" in options.parts:
        integers = [(str(k), answer) for k in range(2000) for answer in (str(k), f"{k + 1:,}")]
        table("grading 4,000 integers", Times.of_ways(graders(integers), options.rounds))
        if options.data:
            rows = [json.loads(line)["answer"] for line in options.data.read_text(encoding="utf-8").splitlines()]
            golds = [(gold, gold.replace(r"\frac", r"\dfrac")) for gold in rows] + list(pairwise(rows))
            table(f"grading {len(golds)} of {options.data.stem}", Times.of_ways(graders(golds), options.rounds))


def table(work: str, times: Times) -> None:
    """A line for each side; the first one is ours."""
    ours = next(iter(times.seconds))
    for side in times.seconds:
        print(f"| {work} | {side} | {times.told(side)} | {times.ratio(side, ours)} |", flush=True)


def rollouts(options: argparse.Namespace, config: Config) -> dict[str, Callable[[], Any]]:
    """Ours, stock `generate` anew on every turn's history, and continuous batching of the same."""
    args = engine_flags("rollout").parse_args(["--model", config.model.name_or_path, "--rows", str(options.rows)])
    args.group, args.instruction_tokens = 4, 30
    model = load(args).eval()
    model.generation_config.eos_token_id = None  # lengths are enforced
    work = synthetic(args, model.config.vocab_size)
    work = replace(work, lengths=[[args.turn_tokens] * options.rows] * args.turns)
    engine = HFEngine(model, max_rows=options.rows)

    def ours() -> list[TokenIds]:
        engine.release()
        return roll_engine(engine, work)

    return {
        "ours": ours,
        "`generate`": lambda: roll_generate(model, work),
        "continuous batching": lambda: roll_continuous(model, work),
    }


def roll_continuous(model: Any, work: Rollouts) -> list[TokenIds]:
    """Whole trajectories; each turn's histories are requests of their own."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    def complete(histories: list[TokenIds], lengths: list[int]) -> list[TokenIds]:
        blocks = sum(len(ids) + lengths[0] for ids in histories) // 32 + 2 * len(histories)
        found = model.generate_batch(
            [list(ids) for ids in histories],
            generation_config=GenerationConfig(
                max_new_tokens=lengths[0], do_sample=False, pad_token_id=0, eos_token_id=-1
            ),
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=blocks, max_batch_tokens=256),
            warmup=False,
        )
        done = {tuple(output.prompt_ids): tuple(output.generated_tokens) for output in found.values()}
        return [done[ids] for ids in histories]  # equal histories have equal continuations

    return work.played(complete)


def updates(config: Config, rounds: int, sizes: Sequence[int]) -> None:
    """Time of the step that TRL and we log, without the rollout, which is replayed."""
    from trl.trainer import utils as trl_utils

    from backtrack_mrt.algos.grpo import Grpo
    from backtrack_mrt.rollouts.assembly import Assembly, assemble
    from backtrack_mrt.rollouts.collector import Collected, Collector
    from backtrack_mrt.runs.directory import RunDir
    from backtrack_mrt.training.grpo_settings import prepare_trl
    from backtrack_mrt.training.rl import PolicyTrainer
    from backtrack_mrt.training.trainer_setup import Setup

    training = config.training.model_copy(update={"steps": 1, "learning_rate": 1e-12, "saved_rollouts": 0})
    with tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"training": training, "algorithm": Grpo(), "output_dir": folder})
        parts, peers = assemble(config), assemble(config)  # ours changes the layers of its model
        problems, seeds = rows_of_step(config)
        collected = parts.training_collector().collect(problems, seeds, training.temperature)

        class Replaying(Collector):
            """Has the rollouts already."""

            def begin(self, *_: Any, **__: Any) -> Callable[[], Collected]:
                return lambda: replace(collected, seconds={})

        collector = Replaying(**vars(parts.collector(config.protocol, with_values=False)))
        plain_head = trl_utils._use_triton  # type: ignore[attr-defined]

        def sized(side: Assembly, micro: int) -> Setup:
            fewer = {"training": training.model_copy(update={"micro_batch_size": micro})}
            smaller = config.model_copy(update=fewer | {"output_dir": tempfile.mkdtemp(dir=folder)})
            return Setup(side.model, side.tokenizer, smaller, RunDir.create(smaller, "overwrite"))

        def ours(micro: int) -> float:
            prepare_trl()
            setup = sized(parts, micro)
            PolicyTrainer(setup, problems=problems[:: training.group_size], collector=collector).fit()
            return float(setup.run.metrics()[-1]["time/update"])

        def stock(micro: int) -> float:
            trl_utils._use_triton = plain_head  # type: ignore[attr-defined]
            return stock_update(sized(peers, micro), collected.scored)

        times = Times()
        for number in range(rounds + 1):
            for side in (ours, stock):
                for micro in sizes:
                    seconds = side(micro)
                    if number:  # the first round warms up
                        name = f"{'ours' if side is ours else 'stock TRL'}, micro-batches of {micro}"
                        times.seconds.setdefault(name, []).append(seconds)
    table(f"update of {len(problems)} rows", times)


def stock_update(setup: Any, scored: Any) -> float:
    """Seconds of a step of TRL's own GRPO on these rows."""
    import time

    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOTrainer

    from backtrack_mrt.training.grpo_settings import grpo_config, outcome_reward, trl_rows

    class Clock(TrainerCallback):
        began, seconds = 0.0, 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.began

    rows = [member.trajectory for member in scored]
    replayed = trl_rows(rows, setup.tokenizer.eos_token_id) | {"logprobs": None}
    clock, count = Clock(), len(rows) // setup.config.training.group_size
    args = grpo_config(setup.config, setup.run)
    args.save_strategy = "no"
    trainer = GRPOTrainer(
        setup.model,
        outcome_reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["?"] * count}),
        processing_class=setup.tokenizer,
        rollout_func=lambda prompts, trainer: dict(replayed),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.seconds


def graders(pairs: list[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    """Ours anew, so that nothing is remembered; the others one by one, as their users call them."""
    from math_verify import parse, verify

    def ours() -> None:
        with MathGrader() as grader:
            grader.grade_many(pairs)

    def bare() -> None:
        for gold, answer in pairs:
            verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}"))

    sides = {"ours": ours, "math-verify": bare}
    try:
        from verifiers.v1.utils.score import verify_boxed_math_answer
    except ImportError as error:
        print(f"| verifiers | left out: {error} | | |")
        return sides

    def rubric() -> None:
        for gold, answer in pairs:
            verify_boxed_math_answer(rf"\boxed{{{answer}}}", gold)

    return sides | {"verifiers": rubric}


if __name__ == "__main__":
    run_main(main)
