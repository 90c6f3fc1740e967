#!/usr/bin/env python
"""The gradient of one update: rows padded and prompts repeated, as TRL has them, against packed rows, by the model's
modules and in compiled code; with --answers, packed rows alone against those whose forced answers are trained along
(`algorithm.answer_weight`): those that are drawn, and the answers at the ends of all turns.

    python scripts/bench/update.py                                      # the embedded model
    python scripts/bench/update.py --config smollm2_135m.yaml --model.name_or_path models/smollm2-135m-instruct

Rolls out one step of the config, and takes the gradient of a weighted sum of its log-probabilities in each way, in
turn: processor seconds of this process (median, lowest and highest) and the ratio of the medians. Takes flags of
`backtrack-mrt train`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from step import rows_of_step
from timing import Times
from torch import Tensor

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import run_main
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.types import Trajectory

Objective = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # of ids, mask (n, L), weights (n, C), the first row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is timed")
    parser.add_argument("--micro", type=int, nargs="+", default=[], help="rows of a micro-batch")
    parser.add_argument("--answers", action="store_true", help="with and without forced answers")
    options, flags = parser.parse_known_args()
    config = read_request(flags).config
    from trl.trainer.utils import add_fused_lm_head

    from backtrack_mrt.rollouts.spelling import Speller
    from backtrack_mrt.runs import environment
    from backtrack_mrt.training.answers import AnswerMaker
    from backtrack_mrt.training.grpo_settings import prepare_trl

    environment.prepare()  # as every training does
    prepare_trl()
    parts = assemble(config)
    scored = parts.training_collector().collect(*rows_of_step(config), config.training.temperature).scored
    trajectories = [member.trajectory for member in scored]
    model = parts.model.train()
    add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[], Tensor]] = {}
    for micro in options.micro or [min(config.training.micro_batch_size, len(trajectories))]:
        behind = f"micro-batches of {micro}"
        of_all = partial(gradient, model, rows=trajectories, micro=micro)
        if options.answers:
            maker = AnswerMaker(parts.dialogue, Speller(parts.dialogue), parts.engine.context_length)
            ways[f"without answers, {behind}"] = partial(faster, model, partial(of_all, partial(packed, model)))
            for way, found in (
                ("drawn", maker.drawn(scored, seed=(0,))),
                ("all", [maker.answers(trajectory) for trajectory in trajectories]),
            ):
                number = sum(map(len, found))
                work = partial(of_all, partial(packed, model, answers=found))
                ways[f"{way} {number} answers, {behind}"] = partial(faster, model, work)
        else:
            by_length = sorted(trajectories, key=lambda t: len(t.token_ids))
            ways[f"padded, {behind}"] = partial(of_all, partial(padded, model), rows=by_length)
            for way, compiled in (("packed", False), ("compiled", True)):
                work = partial(of_all, partial(packed, model))
                ways[f"{way}, {behind}"] = partial(faster, model, work, compiled=compiled)
    tokens = [len(t.token_ids) for t in trajectories]
    prompts = sum(len(t.prompt_ids) for t in trajectories) / sum(tokens)
    print(f"{len(trajectories)} rows of {np.mean(tokens):.0f} tokens, {prompts:.0%} of them prompts")
    first, times, reference = next(iter(ways)), Times(), torch.zeros(())
    told = set[str]()
    for way, found in times.in_turn(ways, options.rounds):
        if way == first:
            reference = found
        elif way not in told and not options.answers:
            told.add(way)
            print(f"{way}: gradient within {float((found - reference).norm() / reference.norm()):.1e}")
    for way in ways:
        ratio = f"× {times.ratio(way, first)}" if options.answers else f"faster × {times.ratio(first, way)}"
        print(f"{way:40} {times.told(way)}  {ratio}")


def faster(model: Any, work: Callable[[], Tensor], *, compiled: bool = False) -> Tensor:
    """What `work` gives with fused adapters, or in compiled code where there is some; the model's own modules, and
    TRL's output layer, again afterwards."""
    from backtrack_mrt.training.compiled_layers import compile_layers
    from backtrack_mrt.training.compiled_output import compile_output
    from backtrack_mrt.training.fused_lora import fuse_adapters

    decoder = model.get_base_model()
    kinds, forward = [(module, module.__class__) for module in model.modules()], decoder.forward
    fuse_adapters(model)
    if compiled:
        compile_layers(model)
        compile_output(decoder, 1.0)
    found = work()
    for module, kind in kinds:
        module.__class__ = kind
    decoder.forward = forward
    return found


def padded(model: Any, ids: Tensor, mask: Tensor, weights: Tensor, first: int) -> Tensor:
    """Of the model's own rows."""
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, : -weights.size(1)] = -100
    found: Tensor = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
    return (found[:, -weights.size(1) :] * weights).sum()


def packed(model: Any, ids: Tensor, mask: Tensor, weights: Tensor, first: int, answers: Sequence[Any] = ()) -> Tensor:
    """Of packed rows, and the values of the answers that leave them, if there are any."""
    from backtrack_mrt.training.answers import branched, last_hidden_states, total_value
    from backtrack_mrt.training.packing import packed_attention, packed_rows

    width = weights.size(1)
    lengths = [(int(row[:-width].sum()), int(row[-width:].sum())) for row in mask]
    leaving = [branched(*row, each) for row, each in zip(lengths, answers[first:], strict=False)]
    rows = packed_rows(ids, mask, width, model, [each.branches for each in leaving])
    with packed_attention(model.config), last_hidden_states(model) as hidden:
        found = model(**rows.inputs(), shift_labels=rows.targets[None], fused_lm_head=True).log_probs[0]
    total: Tensor = (found[rows.scored] * weights).sum()
    if leaving:
        total = total + total_value(hidden[0][0], model.get_output_embeddings(), leaving, rows.branched)
    return total


def gradient(model: Any, objective: Objective, *, rows: Sequence[Trajectory], micro: int) -> Tensor:
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
        objective(ids, mask, weights, start).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


if __name__ == "__main__":
    run_main(main)
