"""The episode protocol: which turn comes next, and what a turn's text claims. Pure text and state; no tokens sampled.

`EpisodeProtocol` is what a plug-in writes (one file in `envs/`); `backtrack_mrt.rollouts.episode` runs trajectories
through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, final

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from backtrack_mrt.grading.markers import BOXED, MARKERS, Marker, MarkerName
from backtrack_mrt.types import Parsed, Problem, StopReason, Trajectory, Turn, TurnSpec


class ProtocolViolation(Exception):
    """Raised by `parse` for a turn that breaks the protocol. It ends the trajectory with outcome 0; it never leaves
    the environment. `name` is counted in the metrics: keep it a short snake_case word."""

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Share:
    """So many `hits` `of` what was counted, such as right choices of all choices. Shares are pooled over trajectories:
    Σ hits / Σ of."""

    hits: float
    of: float


class EpisodeProtocol(BaseModel, ABC):
    """A multi-turn protocol. Instances are frozen and stateless: the same turns always lead to the same next turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: ClassVar[str] = ""
    one_message: ClassVar[bool] = False  # whether all turns are one message, in which the model is asked only once
    phases: ClassVar[Mapping[str, str]] = {}  # what turns of a phase are for, in a few words, for readers of a report
    marker: MarkerName | None = Field(
        None,
        description="where answers stand: boxed, line (Answer: …), fence (code) (null: as the grader has it)",
    )
    token_budget: int = Field(1024, gt=0, description="sampled tokens per trajectory, all turns together")

    _grader_marker: Marker = PrivateAttr(BOXED)

    @property
    @final
    def marked(self) -> Marker:
        """Where answers stand in a text."""
        return MARKERS[self.marker] if self.marker else self._grader_marker

    @final
    def marked_by(self, marker: Marker) -> Self:
        """The same protocol with answers where a grader has them."""
        if self._grader_marker is marker:
            return self
        other = self.model_copy()
        other._grader_marker = marker
        return other

    def find_answer(self, text: str) -> str | None:
        """The last complete answer that the text marks."""
        return self.marked.find(text)

    @abstractmethod
    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        """What to ask after `turns` (all accepted), or why to stop. The first call has no turns."""

    @abstractmethod
    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        """What the turn's text claims, given the turns before it. Raises ProtocolViolation. Must run in linear time:
        the text is untrusted."""

    def parse_piece(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        """What a turn claims after which the model's stream goes on (see `cuts`). By default as any turn."""
        return self.parse(phase, text, turns)

    def final_answer(self, turns: Sequence[Turn]) -> str | None:
        """The answer that stands after `turns`: by default the latest one given."""
        return next((t.answer for t in reversed(turns) if t.answer is not None), None)

    @property
    @abstractmethod
    def max_turns(self) -> int:
        """An upper bound of the turns of a trajectory."""

    @property
    def max_answers(self) -> int:
        """An upper bound of the answers a trajectory gives. By default every turn may give one."""
        return self.max_turns

    def with_answers(self, answers: int) -> Self:
        """The same protocol, stopping after `answers` answers (at least 1). A protocol that gives one answer is
        returned as it is."""
        return self

    def prolonged(self, factor: float) -> Self:
        """The same protocol with `factor` times the answers after the first and the token budget, to evaluate beyond
        training."""
        longer = self.with_answers(1 + round(factor * (self.max_answers - 1)))
        return longer.model_copy(update={"token_budget": round(factor * self.token_budget)})

    def persistent(self, rounds: int) -> Self | None:
        """The same protocol under budget forcing (s1, 2501.19393): the first `rounds` times that it would come to its
        end, the model is asked to go on. None, the default: there is no such form of it."""
        return None

    def cuts(self, text: str) -> Sequence[int]:
        """Where to cut a completion into several turns, as increasing offsets into `text`, for protocols in which the
        model writes one free stream. By default nowhere: a completion is a turn. All places are wanted: where they are
        more than `turns_left` allows, neighbouring pieces become one turn (see `merged`)."""
        return ()

    def turns_left(self, turns: Sequence[Turn]) -> int:
        """An upper bound of the turns that the completion after `turns` is cut into."""
        return self.max_turns - len(turns)

    def metrics(self, trajectory: Trajectory) -> Mapping[str, float | Share]:
        """Numbers of its own about a graded trajectory, by snake_case names. Every evaluation reports their means over
        the trajectories that have them, with intervals, under the protocol's names."""
        return {}

    def moves(self, trajectory: Trajectory) -> Mapping[str, Sequence[range]]:
        """Turns that are taken together as one move, by the move's name. Every evaluation reports what moves do to the
        meta-prover's value: V after the last turn − V before the first."""
        return {}


def merged(cuts: Sequence[int], most: int) -> list[int]:
    """The cuts that are left when neighbouring pieces are merged into `most` turns of as many pieces each, give or take
    one: a completion is cut after all of it was sampled, so its cuts are known."""
    pieces = len(cuts) + 1
    if pieces <= most:
        return list(cuts)
    return [cuts[turn * pieces // most - 1] for turn in range(1, most)]


def standing_steps(turns: Sequence[Turn]) -> tuple[str, ...]:
    """The steps that stand after the turns, in order."""
    return tuple(text for _, _, text in standing(turns))


def standing(turns: Sequence[Turn]) -> list[tuple[int, int, str]]:
    """The steps of the solution that stands, each with its turn and its place among that turn's steps (both from 0): a
    turn that names a target discards the steps after it, a turn that writes steps appends them."""
    steps: list[tuple[int, int, str]] = []
    for j, (kept, written) in enumerate(standing_changes(turns)):
        if kept is not None:
            del steps[kept:]
        steps += [(j, place, text) for place, text in enumerate(written)]
    return steps


def standing_changes(turns: Sequence[Turn]) -> Iterator[tuple[int | None, Sequence[str]]]:
    """What each turn does to the solution that stands: how many of its steps it keeps (None: all), and those it
    writes."""
    for turn in turns:
        yield turn.target, turn.parsed.steps if turn.parsed else ()


def standing_answer(turns: Sequence[Turn]) -> str | None:
    """The latest answer, unless a turn that names a target has withdrawn it."""
    for turn in reversed(turns):
        if turn.target is not None or turn.answer is not None:
            return turn.answer if turn.target is None else None
    return None
