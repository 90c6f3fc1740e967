"""The meta-prover μ: the policy forced to answer now. V_j = probability that its answer from c_j is right
(MRT 2503.07572, §4; METHOD: value).

A forced answer is short on purpose: with a long one μ becomes "continue" and progress collapses to outcome RL
(2410.08146). All prefixes of a batch go to the engine in one call, which branches them off its cached history.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import numpy as np

from backtrack_mrt.grading import Grader, Verdict, extract_boxed
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import FORCE_PREFIX
from backtrack_mrt.types import FloatArray, Problem, Request, Sampling, StopReason, TokenIds, Trajectory

Prefix = tuple[TokenIds, Problem]


class MetaProver(ABC):
    """Values of prefixes. `tokens` counts the tokens spent on forced answers so far."""

    def __init__(self, dialogue: Dialogue, engine: Engine, policy: Literal["policy", "reference"] = "policy") -> None:
        self.dialogue, self.engine, self.policy = dialogue, engine, policy
        self.tokens = 0

    @abstractmethod
    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """V of each forced prefix (ids up to the begun answer), shape (len(prefixes),)."""

    @abstractmethod
    def answer_tokens(self, problem: Problem) -> int:
        """Tokens that a forced answer to the problem needs."""

    def reserve(self, problem: Problem) -> int:
        """Tokens of the model's context that a trajectory must leave free, so that an answer can be forced from it."""
        return self.dialogue.force_tokens + self.answer_tokens(problem)

    def values(self, trajectories: Sequence[Trajectory]) -> list[FloatArray]:
        """V_0 … V_E of each trajectory, shape (E+1,). V_0 is computed once per problem. After a violation, and where
        the model's context is full, V is 0: no answer can follow."""
        prefixes: list[Prefix] = []
        index: dict[tuple[str, int, int], int] = {}  # (problem, trajectory or -1 for V_0, turn) → row of `prefixes`
        rows: list[list[int]] = []
        for i, trajectory in enumerate(trajectories):
            last = len(trajectory.turns) - (trajectory.stop is StopReason.VIOLATION)
            room = self.engine.context_length - self.answer_tokens(trajectory.problem)
            row = []
            for j in range(last + 1):
                key = (trajectory.problem.id, i if j else -1, j)
                if key not in index:
                    forced = self.dialogue.forced(trajectory, j)
                    if len(forced) > room:
                        break
                    index[key] = len(prefixes)
                    prefixes.append((forced, trajectory.problem))
                row.append(index[key])
            rows.append(row)
        with self.engine.reference() if self.policy == "reference" else nullcontext():
            flat = self.prefix_values(prefixes)
        values = []
        for trajectory, row in zip(trajectories, rows, strict=True):
            padded = np.zeros(len(trajectory.turns) + 1)
            padded[: len(row)] = flat[row]
            values.append(padded)
        return values


class LikelihoodProver(MetaProver):
    """V = exp Σ_t log π(y*_t | c_j, suffix): exact for canonical answers, no sampling noise; a lower bound where the
    gold answer has several surface forms."""

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        golds = [self.dialogue.answer(problem.answer) for _, problem in prefixes]
        self.tokens += sum(map(len, golds))
        logprobs = self.engine.score([ids for ids, _ in prefixes], golds)
        return np.exp([float(row.sum()) for row in logprobs])

    def answer_tokens(self, problem: Problem) -> int:
        return len(self.dialogue.answer(problem.answer))


class SampledProver(MetaProver):
    """V = share of `samples` forced answers that are graded right (`monte_carlo`; noise sd ≤ .5/√samples). With
    temperature 0 and one sample it is `greedy`: 0 or 1."""

    def __init__(
        self,
        dialogue: Dialogue,
        engine: Engine,
        policy: Literal["policy", "reference"] = "policy",
        *,
        grader: Grader,
        samples: int,
        temperature: float,
        max_answer_tokens: int,
        seed: int = 0,
    ) -> None:
        super().__init__(dialogue, engine, policy)
        self.grader, self.samples, self.seed, self.max_answer_tokens = grader, samples, seed, max_answer_tokens
        self.sampling = Sampling(temperature, stop_ids=dialogue.chat.stop_ids)

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        requests = [
            Request(ids, self.max_answer_tokens, (self.seed << 40) + (row << 12) + k)
            for row, (ids, _) in enumerate(prefixes)
            for k in range(self.samples)
        ]
        completions = self.engine.generate(requests, self.sampling)
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        pairs, tolerances = [], []
        for i, completion in enumerate(completions):
            problem = prefixes[i // self.samples][1]
            text = self.dialogue.prompts.texts[FORCE_PREFIX] + self.dialogue.chat.decode(completion.token_ids)
            pairs.append((problem.answer, extract_boxed(text)))
            tolerances.append(problem.rel_tol)
        verdicts = self.grader.grade_many(pairs, rel_tol=tolerances)
        right = np.array([verdict is Verdict.RIGHT for verdict in verdicts], dtype=np.float64)
        shares: FloatArray = right.reshape(len(prefixes), self.samples).mean(axis=1)
        return shares

    def answer_tokens(self, problem: Problem) -> int:
        return self.max_answer_tokens
