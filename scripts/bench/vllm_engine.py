#!/usr/bin/env python
"""Times the vLLM engine: against bare `LLM.generate` at the same turns, and its forced answers with and without prefix
cache.

    python scripts/bench/vllm_engine.py --model models/smollm2-135m-instruct
    python scripts/bench/vllm_engine.py --model tiny --rows 256 --turns 5 --lora     # and with an adapter, two ways

Bare vLLM draws with its own sampler, with a seed and a logprob per token as the engine gives them, and without an
adapter; with `--lora` also with one. Forced answers: each turn of synthetic trajectories ends in one, right after the
rollout, so that the cache holds the histories. Repetitions are interleaved and medians reported; without a GPU in
processor seconds, so that other jobs on it count little.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from engine_work import flags, load
from timing import Times

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import run_main
from backtrack_mrt.policy.files import find_model
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.types import Request, Sampling, TokenIds

Sample = Callable[[list[Request]], list[TokenIds]]  # asked for nothing, it forgets what it has cached
INSTRUCTION = 8  # tokens between two turns


def main() -> None:
    args = parse_args()
    chance = random.Random(0)
    model = load(args)
    vocabulary, length = model.config.vocab_size, args.prompt_tokens + args.turns * (args.turn_tokens + INSTRUCTION)
    settings = {"max_rows": max(args.rows, 64), "context_length": length + 64}
    engine = partial(VLLMEngine, model, **settings)
    engines = {"engine": engine()} | ({"engine, adapter merged": engine(merged=True)} if args.lora else {})

    def random_ids(rows: int, tokens: int) -> list[TokenIds]:
        return [tuple(chance.randrange(vocabulary) for _ in range(tokens)) for _ in range(rows)]

    prompts = random_ids(args.rows, args.prompt_tokens)
    with TemporaryDirectory() as adapter:
        if args.lora:
            model.save_pretrained(adapter)
        samplers = {name: by_engine(each) for name, each in engines.items()}
        samplers["bare"] = bare_vllm(args, None, settings)
        if args.lora:
            samplers["bare, with an adapter"] = bare_vllm(args, adapter, settings)
        ways = {name: partial(played, sample, prompts, args) for name, sample in samplers.items()}
        decode = interleaved(ways, args)
    tokens = args.rows * args.turns * args.turn_tokens
    print(f"{args.rows} rows × {args.turns} turns × {args.turn_tokens} tokens")
    for name in ways:
        ratio = "" if name == "bare" else f", {decode.ratio('bare', name)} of bare vLLM's"
        print(f"{name:<24} {tokens / decode.median(name):8.1f} tokens/s{ratio}")

    trajectories = random_ids(args.trajectories, length)
    ends = range(args.prompt_tokens, length + 1, args.turn_tokens + INSTRUCTION)
    prefixes = [ids[:end] + tuple(range(5, 5 + args.suffix_tokens)) for ids in trajectories for end in ends]
    print(f"{len(prefixes)} prefixes, {sum(map(len, prefixes))} tokens")
    cached = {"on": engines["engine"], "off": engine(prefix_caching=False)}
    for estimator in (likelihood, monte_carlo):
        times = interleaved(
            {name: partial(estimator, each, prefixes, args) for name, each in cached.items()},
            args,
            before=lambda: [remember(each, trajectories) for each in cached.values()],
        )
        print(f"{estimator.__name__:<12} with prefix cache {times.told('on')}, without {times.told('off')}")
        print(f"{'':<12} without / with {times.ratio('off', 'on')}")
    for each in (*engines.values(), cached["off"]):
        each.close()


def played(sample: Sample, prompts: list[TokenIds], args: argparse.Namespace) -> None:
    """The turns of trajectories, from an empty cache: an instruction of a few tokens between two."""
    sample([])  # forget
    rows = prompts
    for turn in range(args.turns):
        drawn = sample([Request(ids, args.turn_tokens, turn * len(rows) + k) for k, ids in enumerate(rows)])
        rows = [ids + new + tuple(range(INSTRUCTION)) for ids, new in zip(rows, drawn, strict=True)]


def bare_vllm(args: argparse.Namespace, adapter: str | None, settings: dict[str, int]) -> Sample:
    """`LLM.generate` of a vLLM that is left as it is."""
    import vllm
    from vllm.lora.request import LoRARequest

    on_cpu = {} if torch.cuda.is_available() else {"enforce_eager": True, "block_size": 32}
    llm = vllm.LLM(
        model=find_model(ModelSection(name_or_path=args.model)),
        dtype=args.dtype,
        max_model_len=settings["context_length"],
        max_num_seqs=settings["max_rows"],
        enable_lora=adapter is not None,
        max_lora_rank=16,
        **on_cpu,
    )
    lora = LoRARequest("bare", 1, adapter) if adapter else None

    def sample(requests: list[Request]) -> list[TokenIds]:
        params = [
            vllm.SamplingParams(
                temperature=1.0, seed=r.seed, max_tokens=r.max_new_tokens, ignore_eos=True, logprobs=0, detokenize=False
            )
            for r in requests
        ]
        if not requests:
            llm.reset_prefix_cache()
            return []
        prompts = [{"prompt_token_ids": list(r.prefix_ids)} for r in requests]
        outputs = llm.generate(prompts, params, lora_request=lora, use_tqdm=False)
        return [tuple(output.outputs[0].token_ids) for output in outputs]

    return sample


def by_engine(engine: VLLMEngine) -> Sample:
    """The same by the engine."""

    def sample(requests: list[Request]) -> list[TokenIds]:
        if not requests:
            engine.release()
        return [completion.token_ids for completion in engine.generate(requests, Sampling())]

    return sample


def remember(engine: VLLMEngine, trajectories: list[TokenIds]) -> None:
    """Leave the cache as a rollout leaves it."""
    engine.release()
    engine.generate([Request(ids, 1, 0) for ids in trajectories], Sampling())


def likelihood(engine: VLLMEngine, prefixes: list[TokenIds], args: argparse.Namespace) -> None:
    """The gold answer's logprobs after every prefix."""
    engine.score(prefixes, [tuple(range(20, 20 + args.answer_tokens))] * len(prefixes))


def monte_carlo(engine: VLLMEngine, prefixes: list[TokenIds], args: argparse.Namespace) -> None:
    """Sampled answers after every prefix."""
    asked = [Request(ids, 2 * args.answer_tokens, k) for ids in prefixes for k in range(args.samples)]
    engine.generate(asked, Sampling())


def interleaved(
    sides: dict[str, Callable[[], Any]], args: argparse.Namespace, before: Callable[[], Any] = lambda: None
) -> Times:
    """Of each side in each repetition."""
    times = Times(on_gpu=torch.cuda.is_available())
    for _ in times.in_turn(sides, args.repetitions, before):
        pass
    return times


def parse_args() -> argparse.Namespace:
    parser = flags(__doc__)
    parser.set_defaults(rows=16, turns=4, turn_tokens=32, repetitions=5)
    parser.add_argument("--trajectories", type=int, default=4, help="whose answers are forced")
    parser.add_argument("--samples", type=int, default=4, help="forced answers per prefix (monte_carlo)")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
