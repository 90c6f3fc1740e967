#!/usr/bin/env python
"""What it costs an update to train the forced answers along (`algorithm.answer_weight`).

    python scripts/bench/answers.py --training.micro_batch_size 16

Rolls out one step of the config, and takes the gradient of its packed rows without answers, with those that are drawn,
and with the answers at the ends of all turns, in turn: processor seconds of this process (median, lowest and highest)
and the ratio to the first. Takes flags of `backtrack-mrt train`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from timing import Times

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import run_main
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.types import Trajectory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is timed")
    options, flags = parser.parse_known_args()
    config = read_request(flags).config
    from trl.trainer.utils import add_fused_lm_head

    from backtrack_mrt.rollouts.spelling import Speller
    from backtrack_mrt.training.answers import AnswerMaker
    from backtrack_mrt.training.fused_lora import fuse_adapters
    from backtrack_mrt.training.grpo_settings import prepare_trl

    prepare_trl()
    parts, count = assemble(config), config.training.problems_per_step
    problems = [
        p for p in load_problem_sets(config.data, count).train[:count] for _ in range(config.training.group_size)
    ]
    seeds = trajectory_seeds(config.seed, 1, len(problems))
    scored = parts.training_collector().collect(problems, seeds, config.training.temperature).scored
    trajectories = [member.trajectory for member in scored]
    add_fused_lm_head(parts.model.train().get_base_model(), outputs=("log_probs", "entropy"))
    fuse_adapters(parts.model)
    speller = Speller(parts.dialogue.chat, parts.dialogue.force_prefix)
    maker = AnswerMaker(parts.dialogue, speller, parts.engine.context_length)
    ways: dict[str, Sequence[Any]] = {
        "without answers": [],
        "answers drawn": maker.drawn(scored, seed=(0,)),
        "all answers": [maker.answers(trajectory) for trajectory in trajectories],
    }
    micro, times = config.training.micro_batch_size, Times()
    works = {way: partial(take_gradient, parts.model, trajectories, found, micro) for way, found in ways.items()}
    for _ in times.in_turn(works, options.rounds):
        pass
    for way, answers in ways.items():
        number = sum(map(len, answers))
        print(f"{way:16} {number:5} answers  {times.told(way)}  × {times.ratio(way, 'without answers')}")


def take_gradient(model: Any, trajectories: Sequence[Trajectory], answers: Sequence[Any], micro: int) -> None:
    """Of the sum of all log-probabilities, and of the values of the answers if there are any."""
    from backtrack_mrt.training.answers import branched, last_hidden_states, total_value
    from backtrack_mrt.training.packing import pack, packed_attention

    shape, like = model.config, model.get_input_embeddings().weight
    model.zero_grad()
    for start in range(0, len(trajectories), micro):
        part = trajectories[start : start + micro]
        prompts = [t.prompt_ids for t in part]
        completions = [t.token_ids[len(t.prompt_ids) :] for t in part]
        leaving = answers[start : start + micro]
        rows = [
            branched(len(t.prompt_ids), len(completion), each)
            for t, completion, each in zip(part, completions, leaving, strict=False)
        ]
        groups = shape.num_attention_heads // shape.num_key_value_heads
        packed = pack(prompts, completions, groups, like, [row.branches for row in rows])
        with packed_attention(shape), last_hidden_states(model) as hidden:
            found = model(**packed.inputs(), shift_labels=packed.targets[None], fused_lm_head=True)
        total = found.log_probs.sum()
        if rows:
            total = total + total_value(hidden[0][0], model.get_output_embeddings(), rows, packed.branched)
        total.backward()


if __name__ == "__main__":
    run_main(main)
