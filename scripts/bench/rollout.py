"""Times multi-turn rollouts: the engine with its cache against `model.generate` on the whole history in every turn.

    python scripts/bench/rollout.py --model models/smollm2-135m-instruct
    python scripts/bench/rollout.py --model tiny --rows 64 --group 8

Both sides do the same work on the same synthetic trajectories: greedy, ragged turns whose lengths are drawn beforehand
and enforced row by row. Repetitions are interleaved and medians reported; on a CPU they are processor seconds, so that
other jobs on the machine count little.
Ratio: positions that went through the model per token of the trajectories (goal ≤ 1.05). Then the forced answers of all
prefixes are scored, and compared with one plain forward pass over the finished trajectories.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from engine_work import flags, load
from timing import Times
from torch import Tensor
from transformers import StoppingCriteria

from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.types import Request, Sampling, TokenIds


@dataclass
class Rollouts:
    """The work: prompts (a group shares one), an instruction and a length for every row and turn."""

    prompts: list[TokenIds]
    instructions: list[TokenIds]
    lengths: list[list[int]]  # turns × rows
    suffix: TokenIds
    answers: list[TokenIds] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens of all trajectories: prompts, instructions and sampled."""
        rows = len(self.prompts)
        return sum(map(len, self.prompts)) + rows * sum(map(len, self.instructions)) + sum(map(sum, self.lengths))

    def played(self, complete: Callable[[list[TokenIds], list[int]], list[TokenIds]]) -> list[TokenIds]:
        """Whole trajectories. complete: what histories go on with, so many tokens each."""
        histories = list(self.prompts)
        for turn, lengths in enumerate(self.lengths):
            if turn:
                histories = [ids + self.instructions[turn - 1] for ids in histories]
            histories = [ids + new for ids, new in zip(histories, complete(histories, lengths), strict=True)]
        return histories


def main() -> None:
    args = parse_args()
    if args.rows % args.group:
        raise UserError("--rows", args.rows, f"not a multiple of --group {args.group}", "Choose a multiple.")
    torch.set_num_threads(args.threads)
    model = load(args).to(args.device)
    model.generation_config.eos_token_id = None  # lengths are enforced
    work = synthetic(args, model.config.vocab_size)
    name = f"{args.model}{' + LoRA' if args.lora else ''}"
    print(
        f"{name}, {args.dtype}, {args.device}, {args.threads} threads: {args.rows} rows in groups of {args.group}, "
        f"{args.turns} turns of up to {args.turn_tokens} tokens, {work.tokens / args.rows:.0f} tokens a trajectory"
    )
    engine = HFEngine(model, max_rows=args.rows)
    times, same = Times(on_gpu=args.device != "cpu"), "not compared"
    for _ in range(args.repetitions):
        engine.release()
        engine.stats.computed = 0
        with times.of("engine"):
            ours = roll_engine(engine, work)
        computed = engine.stats.computed
        with times.of("score"):
            score(engine, work, ours)
        branches = engine.stats.computed - computed
        engine.release()
        with times.of("forward"):
            forward(model, ours)
        if not args.no_generate:
            with times.of("generate"):
                theirs = roll_generate(model, work)
            same = f"{sum(a == b for a, b in zip(ours, theirs, strict=True))} of {args.rows}"
    report(args, work, times, computed, branches, same)


def report(args: Any, work: Rollouts, times: Times, computed: int, branches: int, same: str) -> None:
    sampled = sum(map(sum, work.lengths))
    print(f"computed {computed} positions for {work.tokens} trajectory tokens: ratio {computed / work.tokens:.3f}")
    for side in ("engine", "generate"):
        if side in times.seconds:
            print(f"{side:<9}{times.told(side)}, {sampled / times.median(side):.0f} sampled tokens/s")
    if "generate" in times.seconds:
        print(f"speed-up {times.ratio('generate', 'engine')}; same tokens in {same} rows")
    print(f"score    {times.told('score')}, {branches} positions for {args.turns + 1} forced answers a trajectory")
    print(f"forward  {times.told('forward')}, over the finished trajectories")
    print(f"score / forward {times.ratio('score', 'forward')}; score / engine {times.ratio('score', 'engine')}")


def roll_engine(engine: HFEngine, work: Rollouts) -> list[TokenIds]:
    """Whole trajectories, by the engine."""

    def complete(histories: list[TokenIds], lengths: list[int]) -> list[TokenIds]:
        requests = [Request(ids, length, 0) for ids, length in zip(histories, lengths, strict=True)]
        return [done.token_ids for done in engine.generate(requests, Sampling(temperature=0.0))]

    return work.played(complete)


class RowLengths(StoppingCriteria):
    """Ends every row of `generate` at its own length."""

    def __init__(self, limits: Tensor) -> None:
        self.limits = limits

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return input_ids.shape[1] >= self.limits


@torch.inference_mode()
def roll_generate(model: Any, work: Rollouts) -> list[TokenIds]:
    """Whole trajectories, by `generate` called anew on the left-padded history of every turn."""
    model.eval()

    def complete(histories: list[TokenIds], lengths: list[int]) -> list[TokenIds]:
        width = max(map(len, histories))
        ids = torch.tensor([(0,) * (width - len(row)) + row for row in histories], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in histories], device=model.device)
        done = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(lengths),
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[RowLengths(width + torch.tensor(lengths, device=model.device))],
        )[:, width:].tolist()
        return [tuple(new[:n]) for new, n in zip(done, lengths, strict=True)]

    return work.played(complete)


def score(engine: HFEngine, work: Rollouts, trajectories: list[TokenIds]) -> None:
    """Score a forced answer after every prefix of every trajectory."""
    prefixes, answers = [], []
    for row, ids in enumerate(trajectories):
        end = len(work.prompts[row])
        for turn in range(len(work.lengths) + 1):
            prefixes.append(ids[:end] + work.suffix)
            answers.append(work.answers[row])
            if turn < len(work.lengths):
                end += work.lengths[turn][row] + (len(work.instructions[turn - 1]) if turn else 0)
    engine.score(prefixes, answers)


@torch.inference_mode()
def forward(model: Any, trajectories: list[TokenIds]) -> None:
    """The cheapest plain pass over the trajectories: padded batches, no logits but the last."""
    model.eval()
    for start in range(0, len(trajectories), 8):
        rows = trajectories[start : start + 8]
        width = max(map(len, rows))
        ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=model.device)
        model(input_ids=ids, use_cache=False, logits_to_keep=1)


def synthetic(args: Any, vocabulary: int) -> Rollouts:
    """Random token ids in the asked shape. A turn's length is uniform between half of --turn-tokens and all of it."""
    draw = random.Random(0)

    def ids(count: int) -> TokenIds:
        return tuple(draw.randrange(3, vocabulary) for _ in range(count))

    prompts = [ids(args.prompt_tokens + draw.randrange(-8, 9)) for _ in range(args.rows // args.group)]
    answers = [ids(args.answer_tokens) for _ in prompts]
    return Rollouts(
        [prompt for prompt in prompts for _ in range(args.group)],
        [ids(args.instruction_tokens) for _ in range(args.turns - 1)],
        [[draw.randint(args.turn_tokens // 2, args.turn_tokens) for _ in range(args.rows)] for _ in range(args.turns)],
        ids(args.suffix_tokens),
        [answer for answer in answers for _ in range(args.group)],
    )


def parse_args() -> argparse.Namespace:
    parser = flags(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--group", type=int, default=4, help="trajectories per prompt")
    parser.add_argument("--instruction-tokens", type=int, default=30)
    parser.add_argument("--no-generate", action="store_true", help="leave out the slow side")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
