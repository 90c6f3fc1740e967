"""A trajectory as a person reads it: what each turn says and claims, what was discarded, what it did to V."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, isnan
from typing import NamedTuple

import numpy as np

from backtrack_mrt.evaluation.metrics.turns import tokens_at_turns
from backtrack_mrt.evaluation.metrics.values import normalised_regret
from backtrack_mrt.protocol import standing_changes
from backtrack_mrt.runs.trace import claim
from backtrack_mrt.types import FloatArray, Phase, Scored, StopReason, Trajectory, Turn

PHASES: dict[str, str] = {  # what a phase does; protocols say it of their own ones (`EpisodeProtocol.phases`)
    Phase.ATTEMPT: "the model's first solution",
    Phase.FORCE: "the model is made to answer now",
}
STOPS = {
    StopReason.FINISHED: "the model was done",
    StopReason.TURN_LIMIT: "no further turn was allowed",
    StopReason.BUDGET: "the token budget was used up",
    StopReason.VIOLATION: "a turn broke the protocol",
    None: "still under way",
}
STRENGTHS = (0.02, 0.1, 0.3)  # where progress counts as some, clear and strong


class Piece(NamedTuple):
    """Part of a turn's text. `step` is its number if it is a step; `discarded_by` the number of the turn that
    backtracked over it."""

    text: str
    step: int | None = None
    discarded_by: int | None = None


class TurnView(NamedTuple):
    """One turn. `before` and `after` are V, None without values; numbers of turns count from 1."""

    number: int
    phase: str
    meaning: str
    claim: str
    pieces: Sequence[Piece]
    tokens: int
    before: float | None
    after: float | None
    right: bool | None
    violation: str | None
    given: bool
    weight: float | None

    @property
    def progress(self) -> float | None:
        """p = V after − V before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def strength(self) -> int:
        """Progress in seven classes, −3 … 3."""
        return strength(self.progress)


@dataclass(frozen=True)
class TraceView:
    """One trajectory, under a name that stays the same when the report is rebuilt. `values`: V_0 … V_E, if all of them
    are numbers."""

    name: str
    source: str
    scored: Scored
    kind: str
    headline: str
    turns: Sequence[TurnView]
    values: list[float] | None

    @property
    def trajectory(self) -> Trajectory:
        return self.scored.trajectory

    @property
    def progress(self) -> float | None:
        """V_E − V_0, of the whole trajectory."""
        return None if self.values is None else self.values[-1] - self.values[0]

    @cached_property
    def regret(self) -> float | None:
        """Normalised, over the trajectory's own tokens."""
        tokens = self.trajectory.sampled_tokens
        return None if self.values is None or not tokens else normalised_regret(self.spent, self.values, tokens)

    @cached_property
    def spent(self) -> FloatArray:
        """Sampled tokens after 0 … E turns."""
        return tokens_at_turns(self.trajectory)

    @property
    def violation(self) -> str | None:
        return next((turn.violation for turn in self.turns if turn.violation), None)

    @property
    def stopped(self) -> str:
        """Why it ended, in words."""
        return STOPS[self.trajectory.stop]


def known(scored: Scored) -> list[float] | None:
    """V_0 … V_E, if all of them are numbers."""
    values = None if scored.values is None else scored.values.tolist()
    return values if values is not None and all(map(isfinite, values)) else None


def view(name: str, source: str, scored: Scored, phases: Mapping[str, str]) -> TraceView:
    """How `scored` reads; `source` says whose it is, `phases` what the protocol's own are for."""
    values, turns, meanings = known(scored), scored.trajectory.turns, {**PHASES, **phases}
    weights = [None] * len(turns) if scored.weights is None else np.nan_to_num(scored.weights).round(4).tolist()
    limits: Sequence[float | None] = values or [None] * (len(turns) + 1)
    views = [
        TurnView(
            number=j + 1,
            phase=str(turn.spec.phase),
            meaning=meanings.get(turn.spec.phase, ""),
            claim=claim(turn),
            pieces=pieces,
            tokens=len(turn.completion.token_ids),
            before=limits[j],
            after=limits[j + 1],
            right=turn.right,
            violation=turn.violation,
            given=j < scored.trajectory.given,
            weight=weights[j],
        )
        for j, (turn, pieces) in enumerate(zip(turns, pieces_by_turn(turns), strict=True))
    ]
    kind, headline = verdict(scored.trajectory)
    return TraceView(name, source, scored, kind, headline, views, values)


def strength(progress: float | None) -> int:
    """Progress in seven classes, −3 … 3; 0 without one."""
    if progress is None:
        return 0
    return bisect_right(STRENGTHS, abs(progress)) * (1 if progress > 0 else -1)


def verdict(trajectory: Trajectory) -> tuple[str, str]:
    """How it went: a name to filter by, and a sentence."""
    grades = [turn.right for turn in trajectory.turns if turn.right is not None]
    if trajectory.stop is StopReason.VIOLATION:
        return "violation", "Broke the protocol, so it counts as wrong."
    if isnan(trajectory.outcome):
        return "ungraded", "Not graded."
    right = trajectory.outcome == 1.0
    kind, word = ("right", "Right") if right else ("wrong", "Wrong")
    if not grades:
        return kind, f"{word}."
    if grades[0] != right:
        corrected = ("fixed", "Corrected itself: the first answer was wrong, the final one is right.")
        return corrected if right else ("spoiled", "Spoiled a right answer.")
    if len(grades) == 1:
        return kind, "Right at the first answer." if right else "Wrong, and never revised."
    return kind, f"{word} from the first answer to the last."


def pieces_by_turn(turns: Sequence[Turn]) -> list[list[Piece]]:
    """Every turn's text cut into its steps and what stands between them, with what later turns discarded."""
    discarded: dict[tuple[int, int], int] = {}  # by turn and place of the step
    numbers: dict[tuple[int, int], int] = {}
    standing: list[tuple[int, int]] = []
    for j, (kept, written) in enumerate(standing_changes(turns)):
        if kept is not None:
            discarded |= dict.fromkeys(standing[kept:], j + 1)
            del standing[kept:]
        for place in range(len(written)):
            standing.append((j, place))
            numbers[j, place] = len(standing)
    found = []
    for j, turn in enumerate(turns):
        pieces, end = [], 0
        for place, step in enumerate(turn.parsed.steps if turn.parsed else ()):
            start = turn.text.find(step, end)
            if start < 0 or not step:
                continue  # a text of another program need not hold its steps word for word
            pieces += between(turn.text[end:start])
            pieces.append(Piece(step, numbers[j, place], discarded.get((j, place))))
            end = start + len(step)
        found.append([*pieces, *(between(turn.text[end:]) if pieces else [Piece(turn.text)] if turn.text else [])])
    return found


def between(text: str) -> list[Piece]:
    """What stands between two steps; each is a paragraph of its own, so the blank lines around it are not needed."""
    stripped = text.strip("\n")
    return [Piece(stripped)] if stripped.strip() else []
