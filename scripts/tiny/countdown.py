r"""Builds the embedded policy of COUNTDOWN: a Llama of half a million parameters, taught by demonstrations.

    python scripts/tiny/countdown.py        # offline, one core; writes backtrack_mrt/policy/tiny_countdown/

Two stages: *skills*, until it checks reliably and a forced answer repeats what the text has secured; then *haste*:
half of all attempts are any way at all, and learnt. That is what training improves on. Problems of the `base` split
only. The trainer and the tokenizer's rules are those of SIGNS (`build.py`).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from build import POOL, Encoder, Stage, Trace, fit, new_model
from tokenizer import Pieces, build_tokenizer
from transformers import LlamaForCausalLM

from backtrack_mrt.data.countdown import MAX_VALUE, generate
from backtrack_mrt.data.demonstrations.countdown import demonstrate_countdown
from backtrack_mrt.data.demonstrations.signs import FORCED_ANSWER, INSTRUCTIONS, Demonstrator
from backtrack_mrt.envs.backtrack import BacktrackPhase

OUT = Path(__file__).parents[2] / "backtrack_mrt" / "policy" / "tiny_countdown"
LAYERS = 2
SKILLS = Stage(
    name="skills",
    tokens=3e6,
    lr=6e-3,
    warmup=100,
    demonstrator=Demonstrator(),
    mixture=(),
    long_share=0.0,
    weights={**dict.fromkeys((*BacktrackPhase, FORCED_ANSWER), 1.0), BacktrackPhase.DETECT: 2.0},
)
HASTE = replace(SKILLS, name="haste", tokens=0.4e6, lr=1.5e-3, warmup=20)
HASTY = 0.5  # share of the attempts of the second stage that are made without a thought


def pieces() -> Pieces:
    """Every multi-character piece and the number it stands for."""
    found: Pieces = {text: {} for text in INSTRUCTIONS.values()}
    found |= {"\nAnswer.": {}, "Answer.": {}, "\n\\boxed{": {}, r"\boxed{": {}, "Miss:": {}, "\nNo error": {}}
    for step in (1, 2):
        for text in ("## Step {}:", "\n## Step {}:", "\nError in step {}"):
            found[text.format(step)] = {"step": step}
        found[f"Backtrack to step {step - 1}"] = {"step": step - 1}
    for n in range(MAX_VALUE + 1):
        found |= {f" {n}": {"value": n}, f" = {n};": {"value": n}, f"{n}": {"value": n}}
    found |= {f" {miss};": {"value": miss} for miss in range(-MAX_VALUE, MAX_VALUE + 1)}
    return found | {f" {sign} ": {} for sign in "+-*"} | {f" {sign}": {} for sign in "+-*"}


def demonstrations(encode: Encoder, seed: int, hasty: float = 0.0) -> Iterator[list[Trace]]:
    """Endless pools."""
    rng, draw = random.Random(seed), 0
    while True:
        draw += 1
        problems = generate("base", POOL, seed * 1_000_000 + draw)
        yield [encode(demonstrate_countdown(problem, rng, hasty)) for problem in problems]


def main() -> None:
    """Parses the flags, trains, saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="directory to write (default: the one in the package)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skills", type=Path, help="start from this model instead of training the first stage")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(pieces())
    encode = Encoder(tokenizer, SKILLS.weights)
    if args.skills:
        model = LlamaForCausalLM.from_pretrained(args.skills, dtype=torch.float32)
    else:
        model = new_model(tokenizer, pieces(), LAYERS)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens in the vocabulary")
        fit(model, demonstrations(encode, args.seed), SKILLS, args.seed)
    fit(model, demonstrations(encode, args.seed + 1, HASTY), HASTE, args.seed + 1)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
