"""Problems in, scored trajectories out: rollout, grading, then the meta-prover's values.

An algorithm says how its trajectories come about (`Algorithm.collection`); everything else is shared.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from backtrack_mrt.algos.collecting import Collection, Independent
from backtrack_mrt.data.canaries import CanaryWatch
from backtrack_mrt.errors import UserError, short
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.rollouts.rollout import force_answers, grade, rollout
from backtrack_mrt.rollouts.row_lengths import Reserve, longest_row
from backtrack_mrt.rollouts.stated import StatedAnswers
from backtrack_mrt.runs.out_of_memory import told_when_out_of_memory
from backtrack_mrt.types import FloatArray, Group, Problem, Sampling, Scored, TokenLedger, Trajectory

Valuer = MetaProver | StatedAnswers  # what gives trajectories their values


@dataclass
class Stopwatch:
    """Wall seconds by part."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Collected:
    """Scored trajectories, and what they cost: tokens, and wall seconds by part (rollout, grade, prover)."""

    scored: list[Scored]
    ledger: TokenLedger
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Collector:
    """What a rollout needs.

    Rows are handled `side_by_side` at a time (whole groups of `group_size`), from the first turn to the values, so that
    turns and values go on from histories that are still cached in the engine.
    """

    protocol: EpisodeProtocol
    dialogue: Dialogue
    engine: Engine
    grader: Grader
    prover: Valuer | None
    max_rows: int
    collection: Collection = field(default_factory=Independent)
    group_size: int = 1
    max_answer_tokens: int = 64
    window: int | None = None
    frozen: Valuer | None = None  # the base's, whose values come beside the prover's; may be the prover itself
    canaries: CanaryWatch = field(default_factory=CanaryWatch)

    def under(self, protocol: EpisodeProtocol) -> Collector:
        """The same under another protocol."""
        return replace(self, protocol=protocol)

    def side_by_side(self, starts: Sequence[Problem | Trajectory]) -> int:
        """Rows that are played at a time: `max_rows`, or those whose histories the engine keeps, however long they
        become."""
        kept = self.engine.cache_tokens
        if kept is None:
            return self.max_rows
        reserve = self.prover.reserve if self.prover else None
        longest = longest_row(starts, self.protocol, self.dialogue, self.engine.context_length, reserve)
        return min(self.max_rows, max(kept // longest, 1))

    def chunks(self, starts: Sequence[Problem | Trajectory], group_size: int = 1) -> Iterator[slice]:
        """The starts in runs of `side_by_side`, in whole groups."""
        step = max(self.side_by_side(starts) // group_size, 1) * group_size
        return (slice(first, first + step) for first in range(0, len(starts), step))

    def play(
        self,
        starts: Sequence[Problem | Trajectory],
        seeds: Sequence[int],
        temperature: float,
        *,
        most_turns: int | None = None,
        reserve: Reserve | None = None,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> list[Trajectory]:
        """Each start played on by the policy that the engine has (see `rollout`), not graded. on_rows: told how many
        rows are newly done."""
        played: list[Trajectory] = []
        for rows in self.chunks(starts):
            played += rollout(
                starts[rows],
                seeds[rows],
                self.protocol,
                self.dialogue,
                self.engine,
                self.sampling(temperature),
                most_turns=most_turns,
                reserve=reserve,
            )
            on_rows(len(starts[rows]))
        return played

    def sampling(self, temperature: float) -> Sampling:
        """How turns are drawn: they end where the chat's messages do."""
        return Sampling(temperature, stop_ids=self.dialogue.chat.stop_ids)

    @contextmanager
    def synced(self) -> Iterator[Synced]:
        """Within the block the engine has the policy's weights as they are now, and keeps what it has read from one
        call to the next."""
        self.engine.sync()
        with self._held() as synced:
            yield synced

    def collect(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        temperature: float,
        on_rows: Callable[[int], None] = lambda rows: None,
        others: int = 0,
    ) -> Collected:
        """`Synced.collect` with the policy as it is."""
        with self.synced() as synced:
            return synced.collect(problems, seeds, temperature, on_rows, others)

    def begin(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        temperature: float,
        others: int,
    ) -> Callable[[], Collected]:
        """`collect` in two parts: the engine gets the policy's weights now; what is returned draws the rollouts. With
        an engine that has weights of its own the policy may change meanwhile."""
        self.engine.sync()

        def draw() -> Collected:
            with self._held() as synced:
                return synced.collect(problems, seeds, temperature, others=others)

        return draw

    @contextmanager
    def _held(self) -> Iterator[Synced]:
        try:
            yield Synced(self)
        finally:
            self.engine.release()


@dataclass(frozen=True)
class Synced:
    """A collector whose engine has the policy's weights."""

    collector: Collector

    def collect(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        temperature: float,
        on_rows: Callable[[int], None] = lambda rows: None,
        others: int = 0,
    ) -> Collected:
        """Scored trajectories of the problems, one row each (a group repeats its problem), in order; a collection may
        give more than one per row. `on_rows` is told how many rows are newly done. others: leading rows that another
        process plays (`Play.others`)."""
        c = self.collector
        playing, scored = _Playing(c, c.sampling(temperature)), list[Scored]()
        for rows in c.chunks(problems, c.group_size):
            doing = f"sampling {len(problems[rows])} trajectories and their values"
            with told_when_out_of_memory(doing, ("engine.max_rows", "the protocol's token limits")):
                playing.others = others if rows.start == 0 else 0
                scored += playing.scored(
                    _listed(c.collection.collect(playing, problems[rows], seeds[rows]), c.collection)
                )
            on_rows(len(problems[rows]))
        return Collected(scored, playing.ledger, playing.clock.seconds)

    def force(self, starts: Sequence[Trajectory], seeds: Sequence[int], temperature: float) -> Collected:
        """Each start ended by an answer forced now, graded, without values."""
        playing = _Playing(self.collector, self.collector.sampling(temperature))
        scored = [Scored(trajectory) for trajectory in playing.grade(playing.force(starts, seeds))]
        return Collected(scored, playing.ledger, playing.clock.seconds)


def _listed(given: object, collection: Collection) -> list[Trajectory]:
    """What a collection gave. Raises UserError for anything but trajectories."""
    trajectories: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    if strange := [t for t in trajectories if not isinstance(t, Trajectory)]:
        reason = f"its collect gave {short(strange[0])}, which is no trajectory"
        raise UserError("algo", type(collection).__name__, reason, "Return a list of those that `play` gives.")
    return trajectories


class _Playing:
    """What a collection plays with (`algos.collecting.Play`), and what that has cost so far."""

    def __init__(self, collector: Collector, sampling: Sampling) -> None:
        self.collector, self.sampling, self.group_size = collector, sampling, collector.group_size
        self.others = 0
        self.ledger = TokenLedger()
        self.clock = Stopwatch({"rollout": 0.0, "grade": 0.0, "prover": 0.0})

    def rollout(
        self, starts: Sequence[Problem | Trajectory], seeds: Sequence[int], answers: int | None = None, known: int = 0
    ) -> list[Trajectory]:
        c = self.collector
        protocol = c.protocol if answers is None else c.protocol.with_answers(answers)
        reserve = c.prover.reserve if c.prover else None
        with self.clock.part("rollout"):
            drawn = rollout(starts, seeds, protocol, c.dialogue, c.engine, self.sampling, c.window, reserve=reserve)
        return drawn[:known] + self._counted(drawn[known:])

    def force(self, starts: Sequence[Problem | Trajectory], seeds: Sequence[int]) -> list[Trajectory]:
        c = self.collector
        with self.clock.part("rollout"):
            drawn = force_answers(starts, seeds, c.dialogue, c.engine, self.sampling, c.max_answer_tokens)
        return self._counted(drawn)

    def grade(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        with self.clock.part("grade"):
            return grade(trajectories, self.collector.grader)

    def hinted(self, trajectory: Trajectory) -> Trajectory:
        return self.collector.dialogue.hinted(trajectory)

    def scored(self, trajectories: list[Trajectory]) -> list[Scored]:
        """The trajectories graded, with the meta-prover's values if there is one."""
        trajectories, c = self.grade(trajectories), self.collector
        c.canaries.see(trajectories)
        values = self._values(trajectories, c.prover)
        frozen = values if c.frozen is c.prover else self._values(trajectories, c.frozen)
        return [
            Scored(trajectory, v, frozen_values=base)
            for trajectory, v, base in zip(trajectories, values, frozen, strict=True)
        ]

    def _values(self, trajectories: list[Trajectory], prover: Valuer | None) -> Sequence[FloatArray | None]:
        if prover is None:
            return [None] * len(trajectories)
        with self.clock.part("prover"):
            spent = prover.tokens
            values = prover.values(trajectories)
            self.ledger += TokenLedger(prover=prover.tokens - spent)
        return values

    def _counted(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        for t in trajectories:
            new = t.turns[t.given :]
            sampled = sum(len(turn.completion.token_ids) for turn in new)
            env = sum(len(turn.instruction_ids) for turn in new) + (0 if t.given else len(t.prompt_ids))
            self.ledger += TokenLedger(sampled, env)
        return trajectories


def groups_of(scored: Sequence[Scored], size: int) -> list[Group]:
    """Consecutive rows of one problem each, `size` at a time."""
    chunks = [tuple(scored[start : start + size]) for start in range(0, len(scored), size)]
    return [Group(members[0].trajectory.problem, members) for members in chunks]


def groups_by_problem(scored: Sequence[Scored]) -> list[Group]:
    """All trajectories of each problem, in order of first appearance."""
    gathered: dict[str, list[Scored]] = defaultdict(list)
    for member in scored:
        gathered[member.trajectory.problem.id].append(member)
    return [Group(members[0].trajectory.problem, tuple(members)) for members in gathered.values()]
