#!/usr/bin/env python
"""What vLLM computes where its cache holds only a part of the batch: with all rows at once, and in chunks that fit.

    python scripts/bench/vllm_cache.py --share 0.36

The rollouts and forced answers of one step of a run (flags of `backtrack-mrt train`), first with room for everything,
then with room for a share of the trajectories' tokens. Positions that went through the model: per token of the
trajectories for the rollouts, each for the forced answers. Processor seconds (wall seconds on a GPU), one of each.
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
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.types import FloatArray, TokenIds

BLOCK = 32 if not torch.cuda.is_available() else 16  # tokens


class Counting(VLLMEngine):
    """Counts the positions that forced answers take. tells: whether it says how much room it has."""

    tells = True
    branches = 0

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
    options, flags = parser.parse_known_args()
    config = read_request(flags).config
    parts, training = assemble(config), config.training
    (rows, seeds), times = rows_of_step(config, number=0), Times(on_gpu=torch.cuda.is_available())

    def step(name: str, engine: Counting) -> list[TokenIds]:
        """The trajectories' tokens."""
        collector = replace(parts, engine=engine).training_collector()
        engine.sync()
        engine.stats.computed = engine.branches = 0
        with times.of(name):
            scored = collector.collect(rows, seeds, training.temperature).scored
        trajectories = [member.trajectory for member in scored]
        answers = sum(len(trajectory.turns) + 1 for trajectory in trajectories)
        alone = (engine.stats.computed - engine.branches) / sum(len(t.token_ids) for t in trajectories)
        at_once = min(max(collector.side_by_side(rows), training.group_size), len(rows))
        print(
            f"{name:<16} {at_once:4} rows at once: {alone:.2f} a trajectory token, "
            f"{engine.branches / answers:.1f} a forced answer, {times.told(name)}"
        )
        return [trajectory.token_ids for trajectory in trajectories]

    def engine(blocks: int | None = None) -> Counting:
        return Counting(parts.model, max_rows=config.engine.max_rows, kv_blocks=blocks)

    full = engine()
    whole = step("room for all", full)
    full.close()
    tokens = sum(map(len, whole))
    small = engine(round(options.share * tokens / BLOCK))
    print(f"{len(rows)} trajectories of {tokens} tokens, room for {small.cache_tokens}")
    for name, small.tells in (("all at once", False), ("chunks that fit", True)):
        found = step(name, small)
        print(f"{'':<16} {sum(a == b for a, b in zip(whole, found, strict=True))} rows have the same tokens")
    small.close()


if __name__ == "__main__":
    run_main(main)
