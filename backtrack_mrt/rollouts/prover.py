"""The meta-prover μ: the policy forced to answer now. V_j = probability that its answer from c_j is right
(MRT 2503.07572, §4; docs/method.md).

A forced answer is short on purpose: with a long one μ becomes "continue" and progress collapses to outcome RL
(2410.08146). All prefixes of a batch go to the engine in one call, which branches them off its cached history.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import ClassVar, Literal, final

import numpy as np

from backtrack_mrt.config import ProverSection
from backtrack_mrt.errors import UserError, short
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.hooks import of_its_kind
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.spelling import Speller, Spelling, Surfaces, Vocabulary
from backtrack_mrt.types import FloatArray, Problem, Request, Sampling, StopReason, TokenIds, Trajectory

Prefix = tuple[TokenIds, Problem]
_ROUNDING = 1e-6  # that a chance may be off by
AT_ONCE = 512  # samples that an engine is asked for in one call: it keeps the history of each


class MetaProver(ABC):
    """Values of prefixes. `tokens` counts the tokens spent on forced answers so far. One of a user's own
    (`--prover.estimator ./FILE.py`) finds the run's `grader` and its settings (`section`) here, too."""

    summary: ClassVar[str] = ""
    bounded: ClassVar[bool] = True  # whether each estimate is a chance, and not only their mean, or up to rounding
    grader: Grader = MATH
    section: ProverSection

    def __init__(self, dialogue: Dialogue, engine: Engine, policy: Literal["policy", "reference"] = "policy") -> None:
        self.dialogue, self.engine, self.policy = dialogue, engine, policy
        self.tokens = 0

    @abstractmethod
    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """V of each forced prefix (ids up to the begun answer), shape (len(prefixes),)."""

    @abstractmethod
    def answer_tokens(self, problem: Problem) -> int:
        """Tokens that a forced answer to the problem needs."""

    @final
    def reserve(self, problem: Problem) -> int:
        """Tokens of the model's context that a trajectory must leave free, so that an answer can be forced from it."""
        return self._force_tokens + self._answer_room(problem)

    def _answer_room(self, problem: Problem) -> int:
        needed = self.answer_tokens(problem)
        if not isinstance(needed, int | np.integer) or needed < 0:
            raise self._refused("answer_tokens", f"gave {needed!r}", "Return how many tokens an answer takes, an int.")
        return int(needed)

    @cached_property
    def _force_tokens(self) -> int:
        return self.dialogue.force_tokens

    @final
    def prefix(self, trajectory: Trajectory, turns: int) -> Prefix | None:
        """c_j (j = `turns`) with an answer begun, and what that answers; None where no answer can follow: after a
        violation, and where the model's context is full."""
        if trajectory.stop is StopReason.VIOLATION and turns == len(trajectory.turns):
            return None
        forced = self.dialogue.forced(trajectory, turns)
        if len(forced) + self._answer_room(trajectory.problem) > self.engine.context_length:
            return None
        asked = self.grader.standing(trajectory.problem, trajectory.turns[:turns])
        return forced, of_its_kind("grader", self.grader, "standing", asked)

    @final
    def values(self, trajectories: Sequence[Trajectory]) -> list[FloatArray]:
        """V_0 … V_E of each trajectory, shape (E+1,). V_0 is computed once per problem. Where no answer can follow (see
        `prefix`), V is 0. Raises UserError where an estimator of a user's own gives anything but a chance for each."""
        prefixes: list[Prefix] = []
        index: dict[tuple[str, int, int], int] = {}  # (problem, trajectory or -1 for V_0, turn) → row of `prefixes`
        rows: list[list[int]] = []
        for i, trajectory in enumerate(trajectories):
            row = []
            for j in range(len(trajectory.turns) + 1):
                key = (trajectory.problem.id, i if j else -1, j)
                if key not in index:
                    prefix = self.prefix(trajectory, j)
                    if prefix is None:
                        break
                    index[key] = len(prefixes)
                    prefixes.append(prefix)
                row.append(index[key])
            rows.append(row)
        with self.engine.reference() if self.policy == "reference" else nullcontext():
            flat = self._checked(self.prefix_values(prefixes), len(prefixes))
        values = []
        for trajectory, row in zip(trajectories, rows, strict=True):
            padded = np.zeros(len(trajectory.turns) + 1)
            padded[: len(row)] = flat[row]
            values.append(padded)
        return values

    def _asked(self, prover: MetaProver, prefixes: Sequence[Prefix]) -> FloatArray:
        """Another one's values; their tokens count as this one's."""
        spent = prover.tokens
        values = prover.prefix_values(prefixes)
        self.tokens += prover.tokens - spent
        return values

    def _checked(self, values: object, number: int) -> FloatArray:
        try:
            given = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError):  # torch: a tensor that a gradient goes through
            given = np.zeros((0, 0))
        if given.shape != (number,):
            reason = f"gave no {number} numbers for {number} prefixes but {short(values)}"
            raise self._refused("prefix_values", reason, "Return an array with a number for each prefix.")
        if self.bounded and (strange := [v for v in given if not -_ROUNDING <= v <= 1 + _ROUNDING]):  # also NaN
            reason = f"gave {strange[0]:.6g} for {len(strange)} of {number} prefixes"
            raise self._refused("prefix_values", reason, "A value is a chance: a number from 0 to 1.")
        return given

    def _refused(self, method: str, reason: str, remedy: str) -> UserError:
        return UserError("prover.estimator", type(self).__name__, f"its {method} {reason}", remedy)


class LikelihoodProver(MetaProver):
    """V = Σ exp Σ_t log π(token_t | c_j, suffix) over the spellings of the gold (see `spelling`): no sampling noise,
    exact where the gold has one usual form, else a lower bound."""

    bounded: ClassVar[bool] = False

    def __init__(
        self,
        dialogue: Dialogue,
        engine: Engine,
        policy: Literal["policy", "reference"] = "policy",
        surfaces: Surfaces = MATH.spellings,
    ) -> None:
        super().__init__(dialogue, engine, policy)
        self._speller = Speller(dialogue, surfaces)

    def spellings(self, problem: Problem) -> tuple[Spelling, ...]:
        """What counts as the problem's gold."""
        return self._speller.spellings(problem)

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        spelled = [self.spellings(problem) for _, problem in prefixes]
        for spellings in spelled:  # beginnings that they share count once
            self.tokens += len({s.ids[: n + 1] for s in spellings for n in range(len(s.ids))})
        rows = [(row, spelling) for row, spellings in enumerate(spelled) for spelling in spellings]
        logprobs = self.engine.score(
            [prefixes[row][0] for row, _ in rows],
            [spelling.ids for _, spelling in rows],
            [spelling.endings if len(spelling.endings) > 1 else () for _, spelling in rows],
        )
        masses = np.exp([float(each.sum()) for each in logprobs])
        values = np.zeros(len(prefixes))
        np.add.at(values, [row for row, _ in rows], masses)
        return values

    def answer_tokens(self, problem: Problem) -> int:
        return max(len(spelling.ids) for spelling in self.spellings(problem))


class SampledProver(MetaProver):
    """V = mean reward of `samples` forced answers (`monte_carlo`; noise sd ≤ .5/√samples). With
    temperature 0 and one sample it is `greedy`: 0 or 1.

    likelihood: the control variate. The chance L that an answer begins with a spelling of the gold is known, so only
    the other answers are left to chance: V = L + mean(reward) − share(so begun). The mean stays the same and the
    variance falls from V(1 − V)/K to about (V − L)(1 − V + L)/K; a single estimate may be a little above 1. Only for
    samples of the policy as it is: temperature 1, top_p 1. on_answers: told how many answers are newly begun.
    """

    bounded: ClassVar[bool] = False

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
        top_p: float = 1.0,
        seed: int = 0,
        likelihood: LikelihoodProver | None = None,
        on_answers: Callable[[int], None] = lambda answers: None,
    ) -> None:
        super().__init__(dialogue, engine, policy)
        self.grader, self.samples, self.seed, self.max_answer_tokens = grader, samples, seed, max_answer_tokens
        self.on_answers = on_answers
        ending = dialogue.marker.closing if dialogue.prompts.begins_answer else ""
        one = len(ending) == 1  # a longer ending is seldom one token: the message is then drawn to its end
        self._closers = frozenset(Vocabulary(dialogue.chat.pieces).beginning_with(ending)) if one else frozenset()
        self.sampling = Sampling(temperature, top_p, dialogue.chat.stop_ids | self._closers)
        self.likelihood = likelihood

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        if not prefixes:
            return np.zeros(0)
        drawn = self._drawn(prefixes)
        self.tokens += sum(map(len, drawn))
        problems = [problem for _, problem in prefixes for _ in range(self.samples)]
        answers = [self.dialogue.forced_answer(ids) for ids in drawn]
        grades = self.grader.grade_many(list(zip(problems, answers, strict=True)))
        counted = np.array([grade.reward for grade in grades], dtype=np.float64)
        known = np.zeros(len(prefixes))
        if self.likelihood is not None:
            known = self._asked(self.likelihood, prefixes)
            for i, (problem, ids) in enumerate(zip(problems, drawn, strict=True)):
                counted[i] -= any(spelling.begins(ids) for spelling in self.likelihood.spellings(problem))
        shares: FloatArray = known + counted.reshape(len(prefixes), self.samples).mean(axis=1)
        return shares

    def _drawn(self, prefixes: Sequence[Prefix]) -> list[TokenIds]:
        """`samples` forced answers per prefix. What comes behind the box does not count and is not drawn: every token
        that may close it is a stop, and what stopped at a brace inside the answer goes on with a fresh seed."""
        starts = [ids for ids, _ in prefixes for _ in range(self.samples)]
        seeds = [(self.seed << 40) + (row << 12) + k for row in range(len(prefixes)) for k in range(self.samples)]
        drawn: list[TokenIds] = [() for _ in starts]
        going, times = list(range(len(starts))), 0
        while going:
            requests = [
                Request(starts[i] + drawn[i], self.max_answer_tokens - len(drawn[i]), seeds[i] + (times << 56))
                for i in going
            ]
            for start in range(0, len(going), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                for i, completion in zip(going[part], self.engine.generate(requests[part], self.sampling), strict=True):
                    drawn[i] += completion.token_ids
                if not times:
                    self.on_answers(len(going[part]))
            paused = [i for i in going if len(drawn[i]) < self.max_answer_tokens and drawn[i][-1] in self._closers]
            going, times = [i for i in paused if not self.dialogue.is_complete(drawn[i])], times + 1
        return drawn

    def answer_tokens(self, problem: Problem) -> int:
        known = self.likelihood.answer_tokens(problem) if self.likelihood else 0
        return max(self.max_answer_tokens, known)


class AutoProver(MetaProver):
    """The likelihood for golds with one usual form, sampled answers for the others."""

    bounded: ClassVar[bool] = False

    def __init__(self, likelihood: LikelihoodProver, monte_carlo: SampledProver) -> None:
        super().__init__(likelihood.dialogue, likelihood.engine, likelihood.policy)
        self.likelihood, self.monte_carlo = likelihood, monte_carlo

    def chosen(self, problem: Problem) -> LikelihoodProver | SampledProver:
        """Who values the problem's prefixes."""
        grader = self.monte_carlo.grader
        canonical = of_its_kind("grader", grader, "is_canonical", grader.is_canonical(problem))
        return self.likelihood if canonical else self.monte_carlo

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        values = np.zeros(len(prefixes))
        for prover in (self.likelihood, self.monte_carlo):
            rows = [row for row, (_, problem) in enumerate(prefixes) if self.chosen(problem) is prover]
            values[rows] = self._asked(prover, [prefixes[row] for row in rows])
        return values

    def answer_tokens(self, problem: Problem) -> int:
        return self.chosen(problem).answer_tokens(problem)
