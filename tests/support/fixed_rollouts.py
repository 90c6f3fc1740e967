"""The trainer of reinforcement learning on rollouts that are always the same, and a random Llama of a few thousand
weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from conftest import BARE, SPECIAL, byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.collector import Collected
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.trainer_setup import Setup
from backtrack_mrt.types import (
    Completion,
    Finish,
    Parsed,
    Problem,
    Scored,
    StopReason,
    TokenLedger,
    Trajectory,
    Turn,
    TurnSpec,
)

GROUP, PROBLEMS = 4, 2
ENGINE_LOGPROB = -6.0  # of every token, by the collector's engine; the model's are about −5.7


def trajectory(problem: Problem, rng: np.random.Generator, turns: int) -> Trajectory:
    """A trajectory of `turns` turns of random tokens, with instructions in between."""

    def ids(n: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(10, 200, n))

    made = []
    for j in range(turns):
        length = int(rng.integers(1, 7))
        completion = Completion(ids(length), (ENGINE_LOGPROB,) * length, Finish.STOP)
        instruction = ids(2) if j else ()
        made.append(Turn(TurnSpec("attempt", 8), "", Parsed(answer="1"), instruction, completion))
    return Trajectory(problem, ids(3 + len(problem.id)), tuple(made), StopReason.FINISHED, "1")


class FixedCollector:
    """Stands for the rollouts: always the same scored trajectories."""

    exact = True

    def __init__(self, given: int = 0) -> None:
        rng = np.random.default_rng(0)
        self.problems = [Problem("p" * (k + 1), f"question {k}", "1") for k in range(PROBLEMS)]
        self.scored: dict[str, list[Scored]] = {}
        for problem in self.problems:
            members = []
            for g in range(GROUP):
                row = replace(trajectory(problem, rng, turns=1 + g % 3), outcome=float(g == 0), verdict="wrong")
                row = replace(row, given=min(given, len(row.turns) - 1))
                values = rng.uniform(size=len(row.turns) + 1)
                members.append(Scored(row, values))
            self.scored[problem.id] = members
        self.engine = self

    def under(self, protocol: EpisodeProtocol) -> FixedCollector:
        return self

    def begin(
        self, problems: Sequence[Problem], seeds: Sequence[int], temperature: float, others: int
    ) -> Callable[[], Collected]:
        assert [p.id for p in problems] == [p.id for p in self.problems for _ in range(GROUP)]
        scored = [scored for problem in self.problems for scored in self.scored[problem.id]]
        return lambda: Collected(scored, TokenLedger(), {})


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(shape)


def make_config(tmp_path: Path, *flags: str) -> Config:
    return read_request(
        [
            *("--output-dir", str(tmp_path / "run"), "--training.steps", "1", "--training.warmup_ratio", "0"),
            *("--training.problems_per_step", str(PROBLEMS), "--training.group_size", str(GROUP)),
            *("--training.max_grad_norm", "1e9", "--model.full_finetuning", "true"),
            *("--algorithms.mrt-rl.credit", "turn", "--algorithms.mrt-rl.answer_weight", "0"),
            *("--training.micro_batch_size", "8", *flags),
        ]
    ).config


def make_setup(tmp_path: Path, *flags: str) -> Setup:
    config, tokenizer = make_config(tmp_path, *flags), byte_tokenizer(BARE, SPECIAL[BARE])
    tokenizer.pad_token = tokenizer.eos_token
    return Setup(make_model(), tokenizer, config, RunDir.create(config, "overwrite"))
