#!/usr/bin/env python
"""One mrt-rl step of a model of any shape with random weights: speed, memory beside the plan, share of the roofline.

    python scripts/bench/large.py --config llama31_8b.yaml --dry-run h100     # on a GPU; 4,096 tokens per trajectory
    python scripts/bench/large.py --tokens 256                                # the embedded tiny shape, anywhere

The model is built on the device from the config's `model.architecture` (or config.json), in its dtype, with its LoRA
adapter; nothing is fetched. Random weights cannot speak the protocol, so every turn samples exactly its limit and is
taken for whatever comes next, until the trajectory has --tokens tokens. With the HF engine. Takes the flags of
`backtrack-mrt train`; `--dry-run DEVICE` names the device whose peak counts (default: this one).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import torch
from floor import parts_of
from step import metrics_of_steps
from timing import count_processor_time

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.data.signs import generate
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.errors import run_main
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.models import random_policy
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.training import roofline
from backtrack_mrt.training.plan import plan
from backtrack_mrt.training.roofline import Clock, overhead
from backtrack_mrt.training.sizes import GIB, peak
from backtrack_mrt.types import Completion, Finish, Parsed, Problem, Request, Sampling, Turn

STEPS = 2  # the first one warms up
FIXED = (
    *("--env", "backtrack", "--prompts", "terse", "--training.steps", str(STEPS), "--training.saved_rollouts", "0"),
    *("--training.learning_rate", "1e-12", "--training.warmup_ratio", "0", "--engine.type", "hf"),
)


class Obliging(Backtrack):
    """Takes every text for what was asked: an answer, an error, the beginning."""

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        if phase == BacktrackPhase.DETECT:
            return Parsed(verdict=False, step=1)
        return Parsed(step=0) if phase == BacktrackPhase.BACKTRACK else Parsed(answer="1")


class FullTurns(HFEngine):
    """Samples as many tokens as were asked for, the last one the end of the message."""

    eos_id = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        drawn = super().generate(requests, replace(sampling, stop_ids=frozenset()))
        return [Completion((*c.token_ids[:-1], self.eos_id), c.logprobs, Finish.STOP) for c in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tokens", type=int, default=4096)
    options, flags = parser.parse_known_args(sys.argv[1:])
    count_processor_time()
    with tempfile.TemporaryDirectory() as folder:
        request = read_request([*flags, *FIXED, "--output-dir", folder], description=__doc__)
        for line in measured(request.config, options.tokens, request.dry_run or roofline.HERE):
            print(line)


def measured(config: Config, tokens: int, device_name: str) -> list[str]:
    """The report of one step with `tokens` tokens per trajectory."""
    device = roofline.device(device_name)
    protocol = Obliging(**config.protocol.model_dump() | {"token_budget": tokens, "max_revisions": tokens})
    config = config.model_copy(update={"protocol": protocol})
    model, tokenizer = random_policy(config.model, config.seed)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()  # its peak counts from here on, without the making of random weights
    prompts = load_prompts(config.env, config.prompts)
    dialogue = Dialogue(ChatFormat(tokenizer, prompts.system), prompts)
    engine = FullTurns(model, max_rows=config.engine.max_rows)
    engine.eos_id = dialogue.chat.eos_id
    parts = Assembly(config, model, tokenizer, dialogue, engine, config.grading.opened())
    collector = parts.training_collector()
    reserve = collector.prover.reserve if collector.prover else None
    problems: list[Problem] = generate("train", STEPS * config.training.problems_per_step, seed=0)
    engine.context_length = tokens + (max(map(reserve, problems)) if reserve else 0)  # where a trajectory ends
    row = metrics_of_steps(parts, problems, collector)[-1]
    sizes = plan(config, device).sizes
    clock = Clock(sizes.network, device, config.model.dtype, overhead(device))
    used = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = config.training.rows
    length = (row["tokens/step_sampled"] + row["tokens/step_env"]) / rows
    planned = peak(replace(sizes, length=round(length)), device)
    return [
        f"{config.model.name_or_path}, {config.model.dtype}, random weights, on {device.name}: "
        f"{rows} trajectories of {length:,.0f} tokens in {row['turns']:.0f} turns",
        *(part.line() for part in parts_of(row, config, dialogue.force_tokens, clock)),
        f"peak memory {used / GIB:.2f} GiB, planned {planned / GIB:.3g}",
    ]


if __name__ == "__main__":
    run_main(main)
