"""Batched rollouts in lock step over turns, in token space, and their scoring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from backtrack_mrt.dialogue import Dialogue
from backtrack_mrt.engines.base import Engine
from backtrack_mrt.grading import Grader
from backtrack_mrt.protocol import Episode, EpisodeProtocol, graded
from backtrack_mrt.prover import MetaProver
from backtrack_mrt.runlog import TokenLedger
from backtrack_mrt.types import FloatArray, Group, Problem, Request, Sampling, Scored, StopReason, TokenIds, Trajectory


def trajectory_seeds(seed: int, step: int, rows: int, first_row: int = 0) -> list[int]:
    """One seed per row, the same however rows are split over batches or processes."""
    return [
        int(np.random.SeedSequence((seed, step, row)).generate_state(1, np.uint32)[0])
        for row in range(first_row, first_row + rows)
    ]


def rollout(
    problems: Sequence[Problem],
    seeds: Sequence[int],
    protocol: EpisodeProtocol,
    dialogue: Dialogue,
    engine: Engine,
    sampling: Sampling,
) -> list[Trajectory]:
    """One trajectory per problem (repeat a problem for a group), not graded. All rows take their turn together, so the
    engine computes every token once: a turn's prefix extends the cached prefix of the turn before."""
    episodes = [Episode(protocol, problem) for problem in problems]
    prefixes: list[TokenIds] = [()] * len(episodes)
    for episode in episodes:
        if episode.spec is not None:
            episode.prompt_ids = dialogue.opening(episode.problem, episode.spec)
    turn = 0
    while True:
        requests, asked = [], []
        for row, episode in enumerate(episodes):
            if episode.spec is None:
                continue
            instruction_ids: TokenIds = ()
            if turn == 0:
                prefixes[row] = episode.prompt_ids
            else:
                instruction_ids = dialogue.following(episode.spec, episode.turns[-1].completion)
                prefixes[row] += instruction_ids
            room = engine.context_length - len(prefixes[row])
            if room < 1:
                episode.end(StopReason.BUDGET)
                continue
            length = min(episode.spec.max_new_tokens, room)
            # The engine hashes the seed with the position, so neighbouring seeds are independent.
            requests.append(Request(prefixes[row], length, (seeds[row] << 16) + turn))
            asked.append((row, instruction_ids))
        if not requests:
            break
        for (row, instruction_ids), completion in zip(asked, engine.generate(requests, sampling), strict=True):
            episodes[row].advance(dialogue.chat.decode(completion.token_ids), completion, instruction_ids)
            prefixes[row] += completion.token_ids
        turn += 1
    return [episode.trajectory() for episode in episodes]


class Collector:
    """Problems in, scored trajectories out: rollout, then grading, then the meta-prover's values.

    Rows are handled `max_rows` at a time, from the first turn to the values, so that the values branch off the
    histories that are still cached in the engine.
    """

    def __init__(
        self,
        protocol: EpisodeProtocol,
        dialogue: Dialogue,
        engine: Engine,
        grader: Grader,
        prover: MetaProver | None,
        max_rows: int,
        rel_tol: float | None = None,
    ) -> None:
        self.protocol, self.dialogue, self.engine, self.grader = protocol, dialogue, engine, grader
        self.prover, self.max_rows, self.rel_tol = prover, max_rows, rel_tol
        self.seconds = {"rollout": 0.0, "grade": 0.0, "prover": 0.0}
        self.ledger = TokenLedger()

    def collect(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        sampling: Sampling,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> list[Scored]:
        """One scored trajectory per problem, in order. `on_rows` is told how many rows are newly done."""
        scored: list[Scored] = []
        for start in range(0, len(problems), self.max_rows):
            rows = slice(start, start + self.max_rows)
            scored += self._collect_rows(problems[rows], seeds[rows], sampling)
            on_rows(len(problems[rows]))
        return scored

    def _collect_rows(self, problems: Sequence[Problem], seeds: Sequence[int], sampling: Sampling) -> list[Scored]:
        with self._timed("rollout"):
            trajectories = rollout(problems, seeds, self.protocol, self.dialogue, self.engine, sampling)
        with self._timed("grade"):
            trajectories = grade(trajectories, self.grader, self.rel_tol)
        values: list[FloatArray | None] = [None] * len(trajectories)
        if self.prover is not None:
            with self._timed("prover"):
                spent = self.prover.tokens
                values = list(self.prover.values(trajectories))
                self.ledger.prover += self.prover.tokens - spent
        self.ledger.sampled += sum(trajectory.sampled_tokens for trajectory in trajectories)
        self.ledger.env += sum(trajectory.env_tokens for trajectory in trajectories)
        return [Scored(trajectory, v) for trajectory, v in zip(trajectories, values, strict=True)]

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start


def grade(trajectories: Sequence[Trajectory], grader: Grader, rel_tol: float | None) -> list[Trajectory]:
    """The trajectories with verdict and outcome; each distinct answer to a gold is graded once."""
    pairs = [(trajectory.problem.answer, trajectory.answer) for trajectory in trajectories]
    verdicts = grader.grade_many(pairs, rel_tol=rel_tol)
    return [graded(trajectory, verdict) for trajectory, verdict in zip(trajectories, verdicts, strict=True)]


def group_by_problem(scored: Sequence[Scored], size: int) -> list[Group]:
    """Consecutive rows of one problem each, `size` at a time."""
    groups = []
    for start in range(0, len(scored), size):
        members = tuple(scored[start : start + size])
        groups.append(Group(members[0].trajectory.problem, members))
    return groups
