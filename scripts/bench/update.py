#!/usr/bin/env python
"""The gradient of one update: rows padded and prompts repeated, as TRL has them, against packed rows, by the model's
modules and in compiled code.

    python scripts/bench/update.py                                      # the embedded model
    python scripts/bench/update.py --config smollm2_135m.yaml --model.name_or_path models/smollm2-135m-instruct

Rolls out one step of the config, and takes the gradient of a weighted sum of its log-probabilities in each way, in
turn: processor seconds of this process (median, lowest and highest) and the ratio of the medians. Takes flags of
`backtrack-mrt train`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timing import Times
from torch import Tensor

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import run_main
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.rollout import rollout, trajectory_seeds
from backtrack_mrt.types import Sampling, Trajectory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is timed")
    parser.add_argument("--micro", type=int, nargs="+", default=[], help="rows of a micro-batch")
    options, flags = parser.parse_known_args()
    config = read_request(flags).config
    from trl.trainer.utils import add_fused_lm_head

    from backtrack_mrt.training.grpo_settings import prepare_trl
    from backtrack_mrt.training.packing import packed_attention, packed_rows

    prepare_trl()
    parts, count = assemble(config), config.training.problems_per_step
    problems = [
        p for p in load_problem_sets(config.data, count).train[:count] for _ in range(config.training.group_size)
    ]
    sampling = Sampling(config.training.temperature, stop_ids=parts.dialogue.chat.stop_ids)
    seeds = trajectory_seeds(config.seed, 1, len(problems))
    trajectories = rollout(problems, seeds, config.protocol, parts.dialogue, parts.engine, sampling)
    parts.engine.release()
    model = parts.model.train()
    add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01, generator=torch.Generator().manual_seed(0))

    def padded(ids: Tensor, mask: Tensor, width: int) -> Tensor:
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :-width] = -100
        found: Tensor = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
        return found[:, -width:]

    def packed(ids: Tensor, mask: Tensor, width: int) -> Tensor:
        rows = packed_rows(ids, mask, width, model)
        with packed_attention(model.config):
            found = model(**rows.inputs(), shift_labels=rows.targets[None], fused_lm_head=True).log_probs[0]
        return found[rows.scored]

    by_length = sorted(trajectories, key=lambda t: len(t.token_ids))
    ways: dict[str, Callable[[], Tensor]] = {}
    for micro in options.micro or [min(config.training.micro_batch_size, len(trajectories))]:
        ways[f"padded, micro-batches of {micro}"] = lambda n=micro: gradient(model, padded, by_length, n)
        for way, compiled in (("packed", False), ("compiled", True)):
            ways[f"{way}, micro-batches of {micro}"] = lambda n=micro, c=compiled: faster(
                model, lambda: gradient(model, packed, trajectories, n), compiled=c
            )
    tokens = [len(t.token_ids) for t in trajectories]
    prompts = sum(len(t.prompt_ids) for t in trajectories) / sum(tokens)
    print(f"{len(trajectories)} rows of {np.mean(tokens):.0f} tokens, {prompts:.0%} of them prompts")
    first, times, reference = next(iter(ways)), Times(), torch.zeros(())
    told = set[str]()
    for way, found in times.in_turn(ways, options.rounds):
        if way == first:
            reference = found
        elif way not in told:
            told.add(way)
            print(f"{way}: gradient within {float((found - reference).norm() / reference.norm()):.1e}")
    for way in ways:
        print(f"{way:32} {times.told(way)}  faster × {times.ratio(first, way)}")


def faster(model: Any, work: Callable[[], Tensor], *, compiled: bool) -> Tensor:
    """What `work` gives with fused adapters, or with compiled layers where there is code for them; the model's own
    modules again afterwards."""
    from backtrack_mrt.training.compiled_layers import compile_layers
    from backtrack_mrt.training.fused_lora import fuse_adapters

    kinds = [(module, module.__class__) for module in model.modules()]
    fuse_adapters(model)
    if compiled:
        compile_layers(model)
    found = work()
    for module, kind in kinds:
        module.__class__ = kind
    return found


def gradient(
    model: Any, logprobs: Callable[[Tensor, Tensor, int], Tensor], rows: Sequence[Trajectory], micro: int
) -> Tensor:
    """Of Σ_t w_t log π(token_t), with a weight of its own for every turn, by all trained parameters."""
    model.zero_grad()
    for start in range(0, len(rows), micro):
        part = rows[start : start + micro]
        prompt = max(len(t.prompt_ids) for t in part)
        width = max(len(t.token_ids) - len(t.prompt_ids) for t in part)
        ids, mask = torch.zeros(2, len(part), prompt + width, dtype=torch.long)
        weights = torch.zeros(len(part), width)
        for row, t in enumerate(part):
            place = slice(prompt - len(t.prompt_ids), prompt - len(t.prompt_ids) + len(t.token_ids))
            ids[row, place], mask[row, place] = torch.tensor(t.token_ids), 1
            index = torch.tensor(t.turn_index())
            weights[row, : len(index)] = torch.where(index >= 0, (index + len(t.token_ids)).cos(), 0.0)
        (logprobs(ids, mask, width) * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


if __name__ == "__main__":
    run_main(main)
