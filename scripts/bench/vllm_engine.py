#!/usr/bin/env python
"""Times the vLLM engine: against bare `LLM.generate` at the same batch, and its forced answers with and without prefix
cache.

    python scripts/bench/vllm_engine.py --model models/smollm2-135m-instruct
    python scripts/bench/vllm_engine.py --lora                                 # both sides with an adapter

Bare vLLM draws with its own sampler, with a seed and a logprob per token as the engine gives them. Forced answers: each
turn of synthetic trajectories ends in one, right after the rollout, so that the cache holds the histories. Repetitions
are interleaved and medians reported; without a GPU in processor seconds, so that other jobs on it count little.
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


def main() -> None:
    args = parse_args()
    chance = random.Random(0)
    model = load(args)
    vocabulary, length = model.config.vocab_size, args.prompt_tokens + args.turns * args.turn_tokens
    settings = {"max_rows": max(args.rows, 64), "context_length": length + args.tokens + 64}
    engines = {cache: VLLMEngine(model, prefix_caching=cache == "on", **settings) for cache in ("on", "off")}

    def random_ids(rows: int, tokens: int) -> list[TokenIds]:
        return [tuple(chance.randrange(vocabulary) for _ in range(tokens)) for _ in range(rows)]

    with TemporaryDirectory() as folder:
        if args.lora:
            model.save_pretrained(folder)
        bare = bare_vllm(args, folder, settings)
        requests = [
            Request(ids, args.tokens, seed) for seed, ids in enumerate(random_ids(args.rows, args.prompt_tokens))
        ]
        ways = {"engine": lambda: decoded(engines["on"], requests), "bare": lambda: bare(requests)}
        decode = interleaved(ways, args)
    tokens = args.rows * args.tokens
    for name in ways:
        print(f"{name:<7} {tokens / decode.median(name):8.1f} tokens/s  ({args.rows} rows × {args.tokens} tokens)")
    print(f"engine / bare, tokens/s: {decode.ratio('bare', 'engine')}")

    trajectories = random_ids(args.trajectories, length)
    ends = range(args.prompt_tokens, length + 1, args.turn_tokens)
    prefixes = [ids[:end] + tuple(range(5, 5 + args.suffix_tokens)) for ids in trajectories for end in ends]
    print(f"{len(prefixes)} prefixes, {sum(map(len, prefixes))} tokens")
    for estimator in (likelihood, monte_carlo):
        times = interleaved(
            {name: partial(estimator, engine, prefixes, args) for name, engine in engines.items()},
            args,
            before=lambda: [remember(engine, trajectories) for engine in engines.values()],
        )
        print(f"{estimator.__name__:<12} with prefix cache {times.told('on')}, without {times.told('off')}")
        print(f"{'':<12} without / with {times.ratio('off', 'on')}")
    for engine in engines.values():
        engine.close()


def bare_vllm(args: argparse.Namespace, adapter: str, settings: dict[str, int]) -> Callable[[list[Request]], None]:
    """`LLM.generate` of a vLLM that is left as it is."""
    import vllm
    from vllm.lora.request import LoRARequest

    on_cpu = {} if torch.cuda.is_available() else {"enforce_eager": True, "block_size": 32}
    llm = vllm.LLM(
        model=find_model(ModelSection(name_or_path=args.model)),
        dtype=args.dtype,
        max_model_len=settings["context_length"],
        max_num_seqs=settings["max_rows"],
        enable_lora=args.lora,
        max_lora_rank=16,
        **on_cpu,
    )
    lora = LoRARequest("bare", 1, adapter) if args.lora else None

    def generate(requests: list[Request]) -> None:
        params = [
            vllm.SamplingParams(
                temperature=1.0, seed=r.seed, max_tokens=r.max_new_tokens, ignore_eos=True, logprobs=0, detokenize=False
            )
            for r in requests
        ]
        prompts = [{"prompt_token_ids": list(r.prefix_ids)} for r in requests]
        llm.reset_prefix_cache()
        llm.generate(prompts, params, lora_request=lora, use_tqdm=False)

    return generate


def decoded(engine: VLLMEngine, requests: list[Request]) -> None:
    """The same by the engine, with nothing cached either."""
    engine.release()
    engine.generate(requests, Sampling())


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
    parser.set_defaults(rows=16, turns=4, turn_tokens=60, repetitions=5)
    parser.add_argument("--tokens", type=int, default=32, help="sampled per row")
    parser.add_argument("--trajectories", type=int, default=4, help="whose answers are forced")
    parser.add_argument("--samples", type=int, default=4, help="forced answers per prefix (monte_carlo)")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
