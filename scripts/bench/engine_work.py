"""What the benchmarks of the engines share: the model, the flags of the synthetic work."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from backtrack_mrt.config import ModelSection
from backtrack_mrt.policy.files import find_model


def flags(description: str) -> argparse.ArgumentParser:
    """Of the model and the shape of the work; who parses them may set other defaults."""
    parser = argparse.ArgumentParser(
        description=description.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="models/smollm2-135m-instruct", help="model folder, or 'tiny'")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--lora", action="store_true", help="with a LoRA adapter on all linear layers")
    parser.add_argument("--rows", type=int, default=24, help="trajectories in the batch")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--turn-tokens", type=int, default=48, help="longest turn")
    parser.add_argument("--prompt-tokens", type=int, default=120)
    parser.add_argument("--suffix-tokens", type=int, default=12, help="tokens that force the answer")
    parser.add_argument("--answer-tokens", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    return parser


def load(args: argparse.Namespace) -> Any:
    """The model, with its adapter. Raises UserError."""
    folder = find_model(ModelSection(name_or_path=args.model))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype))
    if not args.lora:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False))
