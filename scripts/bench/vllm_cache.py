#!/usr/bin/env python
"""What vLLM computes where its cache holds only a part of the batch: with all rows at once, and in chunks that fit.

    python scripts/bench/vllm_cache.py --share 0.36
    python scripts/bench/vllm_cache.py --share 0.36 --rows 16 64      # with two values of `engine.max_rows`

The rollouts and forced answers of one step of a run (flags of `backtrack-mrt train`), first with room for everything,
then with room for a share of the trajectories' tokens. Positions that went through the model: per token of the
trajectories for the rollouts, each for the forced answers. Of a turn's prompt, how many tokens were cached; and how
often vLLM gave up a row for want of room, to read it again. Processor seconds (wall seconds on a GPU), one of each.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
from step import rows_of_step
from timing import Times

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import run_main
from backtrack_mrt.policy.vllm.jobs import Drawn, Job
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.types import Completion, FloatArray, TokenIds

BLOCK = 32 if not torch.cuda.is_available() else 16  # tokens


class Counting(VLLMEngine):
    """Counts the positions that forced answers take, turns and their cached tokens, and preemptions. tells: whether it
    says how much room it has."""

    tells = True
    branches = turns = asked = cached = preemptions = 0

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        scheduler = self._llm.llm_engine.engine_core.engine_core.scheduler
        preempt = scheduler._preempt_request

        def counted(*given: Any, **settings: Any) -> None:
            self.preemptions += 1
            preempt(*given, **settings)

        scheduler._preempt_request = counted

    def begin(self) -> None:
        """Count anew."""
        self.sync()
        self.stats.computed = self.branches = self.turns = self.asked = self.cached = self.preemptions = 0

    def _completion(self, job: Job, drawn: Drawn) -> Completion:
        self.turns += 1
        self.asked += len(job.prompt_ids)
        self.cached += drawn.cached
        return super()._completion(job, drawn)

    @property
    def cache_tokens(self) -> int | None:  # type: ignore[override]
        return super().cache_tokens if self.tells else None

    def score(self, *asked: Any, **settings: Any) -> list[FloatArray]:
        before = self.stats.computed
        scores = super().score(*asked, **settings)
        self.branches += self.stats.computed - before
        return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=0.36, help="of the trajectories' tokens that have room")
    parser.add_argument("--rows", type=int, nargs="+", help="values of engine.max_rows (default: the config's)")
    options, flags = parser.parse_known_args()
    config = read_request(flags).config
    parts = assemble(config)
    for rows in options.rows or [config.engine.max_rows]:
        settings = config.model_copy(update={"engine": config.engine.model_copy(update={"max_rows": rows})})
        measure(replace(parts, config=settings), options.share)


def measure(parts: Assembly, share: float) -> None:
    """Both ways, and with room for all, at the config's `engine.max_rows`."""
    config, training = parts.config, parts.config.training
    (rows, seeds), times = rows_of_step(config, number=0), Times(on_gpu=torch.cuda.is_available())

    def step(name: str, engine: Counting) -> list[TokenIds]:
        """The trajectories' tokens."""
        collector = replace(parts, engine=engine).training_collector()
        engine.begin()
        with times.of(name):
            scored = collector.collect(rows, seeds, training.temperature).scored
        trajectories = [member.trajectory for member in scored]
        answers = sum(len(trajectory.turns) + 1 for trajectory in trajectories)
        alone = (engine.stats.computed - engine.branches) / sum(len(t.token_ids) for t in trajectories)
        at_once = min(max(collector.side_by_side(rows), training.group_size), len(rows))
        print(
            f"{name:<16} {at_once:4} rows at once: {alone:.2f} a trajectory token, "
            f"{engine.branches / answers:.1f} a forced answer; {engine.cached / engine.turns:.1f} of "
            f"{engine.asked / engine.turns:.1f} tokens cached a turn, {engine.preemptions} preemptions; "
            f"{times.told(name)}"
        )
        return [trajectory.token_ids for trajectory in trajectories]

    def engine(blocks: int | None = None) -> Counting:
        section = config.engine
        return Counting(
            parts.model,
            max_rows=section.max_rows,
            context_length=section.context_length,
            gpu_memory=section.gpu_memory,
            kv_blocks=blocks,
        )

    full = engine()
    whole = step("room for all", full)
    full.close()
    tokens = sum(map(len, whole))
    small = engine(round(share * tokens / BLOCK))
    print(
        f"engine.max_rows {config.engine.max_rows}: {len(rows)} trajectories of {tokens} tokens, "
        f"room for {small.cache_tokens}"
    )
    for name, small.tells in (("all at once", False), ("chunks that fit", True)):
        found = step(name, small)
        print(f"{'':<16} {sum(a == b for a, b in zip(whole, found, strict=True))} rows have the same tokens")
    small.close()


if __name__ == "__main__":
    run_main(main)
