r"""Builds the embedded policy of COUNTDOWN: a Llama of half a million parameters, taught by demonstrations.

    python scripts/tiny/countdown.py        # offline, one core; writes backtrack_mrt/policy/tiny_countdown/

Two stages: *skills*, until it checks reliably and a forced answer repeats what the text has secured; then *haste*:
half of all attempts are any way at all, and learnt. That is what training improves on. Problems of the `base` split
only. The trainer and the tokenizer's rules are those of SIGNS (`build.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from build import POOL, Encoder, Stage, Trace, build, fit
from tokenizer import Pieces, protocol_pieces
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from backtrack_mrt.data.countdown import MAX_VALUE, generate
from backtrack_mrt.data.demonstrations.countdown import demonstrate_countdown
from backtrack_mrt.data.demonstrations.signs import FORCED_ANSWER, Demonstrator
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
    found = protocol_pieces(2)
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


def learn_skills(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    fit(model, demonstrations(Encoder(tokenizer, SKILLS.weights), seed), SKILLS, seed)


def learn_haste(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    fit(model, demonstrations(Encoder(tokenizer, SKILLS.weights), seed, HASTY), HASTE, seed)


if __name__ == "__main__":
    build(__doc__, OUT, pieces(), LAYERS, learn_skills, learn_haste)
