#!/usr/bin/env python
"""Times the vLLM engine: trajectories of several turns against bare `LLM.generate`, and forced answers with and without
prefix cache.

    python scripts/bench/vllm_engine.py --model models/smollm2-135m-instruct
    python scripts/bench/vllm_engine.py --model tiny --rows 256 --turns 5 --lora     # and with an adapter, two ways
    python scripts/bench/vllm_engine.py --model tiny --trajectories 0                # only what `Draws` costs

Turns are of any length up to `--turn-tokens`, and the engine's rows do not wait for each other; in lock step they do,
as bare vLLM's. That draws with its own sampler instead of `Draws`, a logprob per token and no seeds (on a CPU it has
none for prompts that it reads in pieces), without an adapter; with `--lora` also with one. Forced answers: each turn of
synthetic trajectories ends in one, right after the rollout, so that the cache holds the histories. Repetitions are
interleaved and medians reported; without a GPU in processor seconds, so that other jobs on it count little.
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from engine_work import flags, load
from timing import Times

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import run_main
from backtrack_mrt.policy.files import find_model
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.rollouts.rollout import converse
from backtrack_mrt.types import Request, Sampling, TokenIds

INSTRUCTION = 8  # tokens between two turns
SHARE = 0.15  # of a GPU's memory, for each of up to five vLLMs


def main() -> None:
    args = parse_args()
    chance, on_gpu = random.Random(0), torch.cuda.is_available()
    model = load(args)
    vocabulary, length = model.config.vocab_size, args.prompt_tokens + args.turns * (args.turn_tokens + INSTRUCTION)
    settings = {"max_rows": max(args.rows, 64), "context_length": length + 64}
    engine = partial(VLLMEngine, model, gpu_memory=SHARE, **settings)
    engines = {"engine": engine()} | ({"engine, adapter merged": engine(merged=True)} if args.lora else {})

    def random_ids(rows: int, tokens: int) -> list[TokenIds]:
        return [tuple(chance.randrange(vocabulary) for _ in range(tokens)) for _ in range(rows)]

    plan = [[chance.randint(1, args.turn_tokens) for _ in range(args.turns)] for _ in range(args.rows)]
    prompts = random_ids(args.rows, args.prompt_tokens)
    with TemporaryDirectory() as adapter:
        if args.lora:
            model.save_pretrained(adapter)
        samplers: dict[str, Any] = engines | {"engine, in lock step": InLockStep(engines["engine"])}
        samplers["bare"] = Bare(args, None, settings)
        if args.lora:
            samplers["bare, with an adapter"] = Bare(args, adapter, settings)
        ways = {name: partial(played, each, prompts, plan) for name, each in samplers.items()}
        decode = Times.of_ways(ways, args.repetitions, on_gpu=on_gpu)
    tokens = sum(map(sum, plan))
    print(f"{args.rows} rows × {args.turns} turns, {tokens} tokens")
    for name in samplers:
        ratio = "" if name == "bare" else f", {decode.ratio('bare', name)} of bare vLLM's"
        print(f"{name:<24} {tokens / decode.median(name):8.1f} tokens/s{ratio}")

    if args.trajectories:
        trajectories = random_ids(args.trajectories, length)
        engines["without prefix cache"] = engine(prefix_caching=False)
        cached = {"on": engines["engine"], "off": engines["without prefix cache"]}
        time_forced_answers(args, trajectories, cached, on_gpu)
    for each in engines.values():
        each.close()


def time_forced_answers(
    args: argparse.Namespace, trajectories: list[TokenIds], cached: dict[str, VLLMEngine], on_gpu: bool
) -> None:
    """Behind each turn of the trajectories, by engines with (`on`) and without (`off`) prefix cache."""
    ends = range(args.prompt_tokens, len(trajectories[0]) + 1, args.turn_tokens + INSTRUCTION)
    prefixes = [ids[:end] + tuple(range(5, 5 + args.suffix_tokens)) for ids in trajectories for end in ends]
    print(f"{len(prefixes)} prefixes, {sum(map(len, prefixes))} tokens")
    for estimator in (likelihood, monte_carlo):
        times = Times.of_ways(
            {name: partial(estimator, each, prefixes, args) for name, each in cached.items()},
            args.repetitions,
            before=lambda: [remember(each, trajectories) for each in cached.values()],
            on_gpu=on_gpu,
        )
        print(f"{estimator.__name__:<12} with prefix cache {times.told('on')}, without {times.told('off')}")
        print(f"{'':<12} without / with {times.ratio('off', 'on')}")


def played(sampler: Any, prompts: list[TokenIds], plan: list[list[int]]) -> None:
    """Trajectories, from an empty cache: turns as long as planned, an instruction of a few tokens between two."""
    sampler.release()
    histories, taken = list(prompts), [0] * len(prompts)

    def asked(row: int) -> Request | None:
        turn = taken[row]
        return Request(histories[row], plan[row][turn], turn * len(plan) + row) if turn < len(plan[row]) else None

    def answered(row: int, completion: Any) -> Request | None:
        histories[row] += completion.token_ids + tuple(range(INSTRUCTION))
        taken[row] += 1
        return asked(row)

    converse(sampler, {row: asked(row) for row in range(len(plan))}, Sampling(), answered)


class InLockStep:
    """The engine, asked turn by turn."""

    def __init__(self, engine: VLLMEngine) -> None:
        self.context_length, self.generate, self.release = engine.context_length, engine.generate, engine.release


class Bare:
    """`LLM.generate` of a vLLM that is left as it is. adapter: its folder, if it has one."""

    def __init__(self, args: argparse.Namespace, adapter: str | None, settings: dict[str, int]) -> None:
        import vllm
        from vllm.lora.request import LoRARequest

        here: dict[str, Any] = {"gpu_memory_utilization": SHARE}
        if not torch.cuda.is_available():
            here = {"enforce_eager": True, "block_size": 32}
        self._llm = vllm.LLM(
            model=find_model(ModelSection(name_or_path=args.model)),
            dtype=args.dtype,
            max_model_len=settings["context_length"],
            max_num_seqs=settings["max_rows"],
            enable_lora=adapter is not None,
            max_lora_rank=16,
            **here,
        )
        self._params = partial(vllm.SamplingParams, temperature=1.0, ignore_eos=True, logprobs=0, detokenize=False)
        self._lora = LoRARequest("bare", 1, adapter) if adapter else None
        self.context_length = settings["context_length"]

    def generate(self, requests: list[Request], sampling: Sampling) -> list[Any]:
        """Of each its `token_ids`."""
        prompts = [{"prompt_token_ids": list(request.prefix_ids)} for request in requests]
        params = [self._params(max_tokens=request.max_new_tokens) for request in requests]
        outputs = self._llm.generate(prompts, params, lora_request=self._lora, use_tqdm=False)
        return [SimpleNamespace(token_ids=tuple(output.outputs[0].token_ids)) for output in outputs]

    def release(self) -> None:
        """Forget what is cached."""
        self._llm.reset_prefix_cache()


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


def parse_args() -> argparse.Namespace:
    parser = flags(__doc__)
    parser.set_defaults(rows=16, turns=4, turn_tokens=48, repetitions=5)
    parser.add_argument("--trajectories", type=int, default=4, help="whose answers are forced; 0: none")
    parser.add_argument("--samples", type=int, default=4, help="forced answers per prefix (monte_carlo)")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
