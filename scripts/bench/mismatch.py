#!/usr/bin/env python
"""How far an engine's logprobs are from the trainer's, at any shape with random weights.

    python scripts/bench/mismatch.py --config llama31_8b.yaml --engine.type vllm     # on a GPU
    python scripts/bench/mismatch.py --protocol.attempt_tokens 16                    # the embedded tiny shape, anywhere

One update of a model that is built on the device, as `large.py` does, with an adapter that is not the identity. Random
weights cannot speak the protocol: every trajectory is one turn, `protocol.attempt_tokens` long. Takes the flags of
`backtrack-mrt train`.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from step import metrics_of_steps

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.data.signs import generate
from backtrack_mrt.errors import run_main
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.policy.hf.trial import serving_engine
from backtrack_mrt.policy.models import random_policy
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts

FIXED = ("--env", "backtrack", "--prompts", "terse", "--training.steps", "1", "--training.saved_rollouts", "0")
SCALE = 0.01  # of the adapter's second matrix, which begins at 0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(measured(read_request([*sys.argv[1:], *FIXED, "--output-dir", folder], description=__doc__).config))


def measured(config: Config) -> str:
    """The report of one update."""
    model, tokenizer = random_policy(config.model, config.seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=SCALE)
    prompts, engine = load_prompts(config.env, config.prompts), engine_of(config, model)
    dialogue = Dialogue(ChatFormat(tokenizer, prompts.system), prompts)
    parts = Assembly(config, model, tokenizer, dialogue, engine, config.grading.opened())
    problems = list(generate("train", config.training.problems_per_step, seed=0))
    (row,) = metrics_of_steps(parts, problems, parts.collector(config.protocol, with_values=False))
    engine.close()
    gap, ratio = "sampling/sampling_logp_difference", "sampling/importance_sampling_ratio"
    return (
        f"{config.model.name_or_path}, {config.model.dtype}, random weights, engine {config.engine.type}: "
        f"of {row['tokens/step_sampled']:,.0f} tokens the logprobs are {row[f'{gap}/mean']:.2g} apart, "
        f"at most {row[f'{gap}/max']:.2g}; importance {row[f'{ratio}/min']:.4f} to {row[f'{ratio}/max']:.4f}"
    )


def engine_of(config: Config, model: Any) -> Engine:
    """The one that the config names, in this process."""
    section = config.engine
    if section.type == "hf":
        return serving_engine(model, config.model.name_or_path)(model, max_rows=section.max_rows)
    return VLLMEngine(
        model, max_rows=section.max_rows, context_length=section.context_length, gpu_memory=section.gpu_memory
    )


if __name__ == "__main__":
    run_main(main)
