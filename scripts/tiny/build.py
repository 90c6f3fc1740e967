r"""Builds the embedded base model: a Llama of 0.9 M parameters, warm-started on SIGNS demonstrations in two stages.

    python scripts/tiny/build.py            # offline, one core; writes backtrack_mrt/policy/tiny/

1. *skills*: endless demonstrations with synthetic errors, until the model checks reliably and the value of a prefix
   rises with every block that is right. Solving carries less weight than checking: the task should stay hard to
   generate.
2. *own errors*: the model's own first attempts, most of them wrong, continued by a demonstrator who is mostly right
   when it revises but often returns to the wrong step. This is the warm start of large models (stitched traces from
   own rollouts): synthetic errors hit blocks that the model finds easy, its own errors those that it finds hard. In
   the first attempts it also learns some hasty errors, see `Demonstrator`.

Blocks of the `base` split only. Matrices are trained by Muon, embeddings, head and norms by AdamW, each stage on a
cosine schedule. Prints a line every ten seconds.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from tokenizer import Pieces, build_tokenizer, pieces
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backtrack_mrt.data.demonstrations.signs import FORCED_ANSWER, Demonstrator, DemoTurn, demonstrate_signs
from backtrack_mrt.data.signs import generate, parse_problem, signed_terms
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.rollout import rollout, trajectory_seeds
from backtrack_mrt.types import Sampling, Trajectory

OUT = Path(__file__).parents[2] / "backtrack_mrt" / "policy" / "tiny"
PERIODS = (2, 3, 5, 7, 12, 24, 72)  # of the waves that tell numbers apart
POOL = 512  # traces drawn and sorted by length at a time, so that batches hold little padding
BATCH_TOKENS = 4096  # padding included


Trace = tuple[list[int], list[float]]  # ids and loss weights, both (T,)


@dataclass(frozen=True)
class Stage:
    """One stage of training. mixture: (fewest blocks, most blocks, share); one or two blocks are drills.
    attempts: 0, or the number of problems whose first attempt the model itself makes."""

    name: str
    tokens: float
    lr: float
    warmup: int  # updates
    demonstrator: Demonstrator
    mixture: tuple[tuple[int, int, float], ...]
    long_share: float  # of four-number blocks
    weights: dict[str, float]  # of a phase's tokens in the loss
    attempts: int = 0


SKILLS = Stage(
    name="skills",
    tokens=11e6,
    lr=6e-3,
    warmup=100,
    demonstrator=Demonstrator(first=0.4, retry=0.45, other=0.35, exact=0.7, early=0.2, repeat=0.1, near=8.0),
    mixture=((1, 2, 0.2), (3, 6, 0.8)),
    long_share=0.75,
    weights={
        BacktrackPhase.ATTEMPT: 0.4,
        BacktrackPhase.REVISE: 0.4,
        BacktrackPhase.DETECT: 2.0,
        BacktrackPhase.BACKTRACK: 1.0,
        FORCED_ANSWER: 0.4,
    },
)
OWN_ERRORS = Stage(
    name="own errors",
    tokens=0.75e6,
    lr=1.5e-3,
    warmup=20,
    demonstrator=Demonstrator(slip=0.22, retry=0.42, exact=0.48, early=0.12, repeat=0.20),
    mixture=((3, 5, 1.0),),
    long_share=0.9,
    weights={**dict.fromkeys((*BacktrackPhase, FORCED_ANSWER), 1.0), BacktrackPhase.DETECT: 2.0},
    attempts=14_000,
)
KEPT_RIGHT = 0.25  # share of the right attempts that are kept: the wrong ones are what there is to learn from


def new_model(tokenizer: PreTrainedTokenizerFast, found: Pieces, layers: int) -> LlamaForCausalLM:
    """A fresh Llama whose input embedding already says what a piece's number, step or sign pattern is."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.normal_(0, 0.3)
        for text, features in found.items():
            row = table[tokenizer.convert_tokens_to_ids(text)]
            if "value" in features:  # a linear scale, so that sums are linear, and waves, so that values are told apart
                value = float(features["value"])
                waves = [wave(2 * math.pi * value / period) for period in PERIODS for wave in (math.sin, math.cos)]
                row[:16] = torch.tensor([value / 9, abs(value) / 9, *waves])
            if "step" in features:
                row[16 + int(features["step"])] = 1.5
            if "signs" in features:
                signs = torch.tensor([1.5 if s == "+" else -1.5 for s in str(features["signs"])])
                row[24 : 24 + len(signs)] = signs
    return model


class Encoder:
    """Turns demonstrations into token ids and loss weights, both of shape (T,)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, weights: dict[str, float]) -> None:
        self.bos, self.eos, self.weights = tokenizer.bos_token_id, tokenizer.eos_token_id, weights
        self.ids = lru_cache(maxsize=200_000)(lambda text: tokenizer.encode(text, add_special_tokens=False))

    def __call__(self, turns: list[DemoTurn]) -> Trace:
        ids, weights = [self.bos], [0.0]
        for j, turn in enumerate(turns):
            instruction = turn.instruction
            if j == 0:  # a question is encoded block by block: blocks repeat, and the ids are the same
                question, _, _ = instruction.partition("\n")
                instruction = instruction[len(question) :]
                for k, block in enumerate(question.split("; ")):
                    ids += self.ids((" " if k else "") + block.removesuffix(";") + ";")
            ids += self.ids(instruction)
            weights += [0.0] * (len(ids) - len(weights))
            for span in turn.spans:
                ids += self.ids(span.text)
                weights += [self.weights[turn.phase] * span.learn] * (len(ids) - len(weights))
            ids.append(self.eos)
            weights.append(1.0)
        return ids, weights


def synthetic(stage: Stage, encode: Encoder, seed: int) -> Iterator[list[Trace]]:
    """Endless pools of fresh demonstrations."""
    rng = random.Random(seed)
    draw = 0
    while True:
        pool = []
        for low, high, share in stage.mixture:
            draw += 1
            dials = {"min_blocks": low, "max_blocks": high, "long_share": stage.long_share}
            for problem in generate("base", int(POOL * share), seed * 1_000_000 + draw, **dials):
                pool.append(encode(demonstrate_signs(problem, rng, stage.demonstrator)))
        yield pool


def on_own_attempts(
    stage: Stage, encode: Encoder, seed: int, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> Iterator[list[Trace]]:
    """Pools of demonstrations that go on from the model's attempts, again and again in another order."""
    rng = random.Random(seed)
    ((low, high, _),) = stage.mixture
    dials = {"min_blocks": low, "max_blocks": high, "long_share": stage.long_share}
    problems = generate("base", stage.attempts, seed * 1_000_000, **dials)
    dialogue = Dialogue(ChatFormat(tokenizer), load_prompts("backtrack", "terse"))
    protocol = Backtrack(max_revisions=0, attempt_tokens=64)
    sampling = Sampling(stop_ids=dialogue.chat.stop_ids)
    engine, traces = HFEngine(model, max_rows=POOL), []
    for start in range(0, len(problems), POOL):
        rows = problems[start : start + POOL]
        seeds = trajectory_seeds(seed, start, len(rows))
        for trajectory in rollout(rows, seeds, protocol, dialogue, engine, sampling):
            attempt = sign_patterns_of(trajectory)
            right = trajectory.answer == trajectory.problem.answer
            if attempt and (not right or rng.random() < KEPT_RIGHT):
                traces.append(encode(demonstrate_signs(trajectory.problem, rng, stage.demonstrator, attempt)))
        engine.release()
    print(f"{stage.name}: {len(traces):,} traces from {len(problems):,} attempts", flush=True)
    while True:
        rng.shuffle(traces)
        for start in range(0, len(traces), POOL):
            yield traces[start : start + POOL]


def sign_patterns_of(trajectory: Trajectory) -> list[str] | None:
    """The attempt's pattern of every block, None if one is missing or of the wrong length."""
    parsed = trajectory.turns[0].parsed
    steps = parsed.steps if parsed else ()
    patterns = ["".join(sign for sign, _ in signed_terms(step)) for step in steps]
    blocks = parse_problem(trajectory.problem)
    return patterns if [len(p) for p in patterns] == [len(b.numbers) for b in blocks] else None


def batches(pools: Iterator[list[Trace]], seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of ids and weights, both (B, T), right-padded; traces of like length side by side."""
    rng = random.Random(seed)
    for pool in pools:
        chunks: list[list[Trace]] = [[]]
        for trace in sorted(pool, key=lambda trace: len(trace[0])):
            if chunks[-1] and (len(chunks[-1]) + 1) * len(trace[0]) > BATCH_TOKENS:
                chunks.append([])
            chunks[-1].append(trace)
        rng.shuffle(chunks)
        for chunk in chunks:
            width = max(len(ids) for ids, _ in chunk)
            yield (
                torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in chunk]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in chunk]),
            )


def train(stage: Stage, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """One pass over `stage.tokens` tokens (padding excluded)."""
    encode = Encoder(tokenizer, stage.weights)
    own = on_own_attempts(stage, encode, seed, model, tokenizer) if stage.attempts else None
    fit(model, own or synthetic(stage, encode, seed), stage, seed)


def fit(model: LlamaForCausalLM, pools: Iterator[list[Trace]], stage: Stage, seed: int) -> None:
    """Train on `stage.tokens` tokens of the pools."""
    data = batches(pools, seed)
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=stage.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    model.train()
    start = shown = time.time()
    seen, step, running = 0, 0, math.nan
    while seen < stage.tokens:
        ids, weights = next(data)
        cosine = 0.5 * (1 + math.cos(math.pi * seen / stage.tokens))
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = stage.lr * min(1.0, (step + 1) / stage.warmup) * (0.02 + 0.98 * cosine)
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        targets, weights = ids[:, 1:], weights[:, 1:]
        learnt = weights > 0
        losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), targets[learnt], reduction="none")
        loss = (losses * weights[learnt]).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen, step = seen + int((ids > 0).sum()), step + 1
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if time.time() - shown > 10 or seen >= stage.tokens:
            shown = time.time()
            rate = seen / (shown - start)
            left = max(0.0, stage.tokens - seen) / rate
            done = f"{stage.name}: step {step}  {seen / 1e6:.2f} M tokens  loss {running:.4f}"
            print(f"{done}  {rate:,.0f} tokens/s  {left:.0f} s left", flush=True)


Learn = Callable[[LlamaForCausalLM, PreTrainedTokenizerFast, int], None]  # a stage, with its seed


def build(description: str | None, out: Path, found: Pieces, layers: int, skills: Learn, habits: Learn) -> None:
    """Parses the flags, trains a model in two stages, saves."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out, help="directory to write (default: the one in the package)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skills", type=Path, help="start from this model instead of training the first stage")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(found)
    if args.skills:
        model = LlamaForCausalLM.from_pretrained(args.skills, dtype=torch.float32)
    else:
        model = new_model(tokenizer, found, layers)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens in the vocabulary")
        skills(model, tokenizer, args.seed)
    habits(model, tokenizer, args.seed + 1)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    build(__doc__, OUT, pieces(), 4, partial(train, SKILLS), partial(train, OWN_ERRORS))
