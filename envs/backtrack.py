"""Backtracking search (MRT's default protocol): attempt → detect → backtrack → revise, repeated.

Grammar, all markers at the start of a line, matched byte for byte:

    attempt    `## Step 1: …`, `## Step 2: …`, numbered without gaps; then `\\boxed{answer}`
    detect     one line `No error` or `Error in step N`, N at most the number of standing steps
    backtrack  one line `Backtrack to step N` (0 = the beginning): the steps after N, at least one, are discarded
    revise     `## Step N+1: …` and on, numbered without gaps; then `\\boxed{answer}`

A number has one to three ASCII digits and is never clamped. After a verdict or a target a full stop and blanks may
follow; a line that differs in any other way is no marker. What else a turn says is free text. The answer is the last
balanced box after the first step's marker; the last step's text runs to the end of the turn. A turn that breaks the
grammar ends the trajectory with outcome 0, under one of these names:

    missing_step         an attempt or revision without a step
    step_order           its steps are not N+1, N+2, … after the N steps that stand
    missing_answer       no balanced box after the first step
    missing_verdict      a check without a verdict
    repeated_verdict     more than one verdict: neither counts
    step_out_of_range    an error in a step that does not stand
    missing_target       a backtrack turn without a target
    repeated_target      more than one target: neither counts
    target_out_of_range  a target that discards no step, or does not exist
    turn_too_long        (any protocol) no end within the turn's token limit
    not_text             (any protocol) the action was neither text nor a completion
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar, Self

from pydantic import Field

from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation, Share, standing_answer, standing_steps
from backtrack_mrt.types import Parsed, Phase, Problem, StopReason, Trajectory, Turn, TurnSpec

STEP = re.compile(r"^## Step ([0-9]{1,3}):", re.ASCII | re.MULTILINE)
_VERDICT = re.compile(r"^(?:(No error)|Error in step ([0-9]{1,3}))\.?[ \t]*$", re.ASCII | re.MULTILINE)
_TARGET = re.compile(r"^Backtrack to step ([0-9]{1,3})\.?[ \t]*$", re.ASCII | re.MULTILINE)


class BacktrackPhase(StrEnum):
    """What a turn is for."""

    ATTEMPT = Phase.ATTEMPT.value
    DETECT = "detect"
    BACKTRACK = "backtrack"
    REVISE = "revise"


class Backtrack(EpisodeProtocol):
    """Attempt, detect the error, backtrack to a step, revise; until "no error" or the revision limit."""

    summary: ClassVar[str] = "attempt → detect → backtrack → revise (MRT's backtracking search)"
    phases: ClassVar[Mapping[str, str]] = {
        BacktrackPhase.DETECT: "the model checks its own steps",
        BacktrackPhase.BACKTRACK: "the model discards steps",
        BacktrackPhase.REVISE: "the model goes on from the steps that are left",
    }
    max_revisions: int = Field(3, ge=0, description="revisions allowed after the attempt")
    attempt_tokens: int = Field(512, gt=0, description="longest attempt or revision, in tokens")
    detect_tokens: int = Field(256, gt=0, description="longest check, in tokens")
    backtrack_tokens: int = Field(32, gt=0, description="longest backtrack turn, in tokens")
    forced_checks: int = Field(0, ge=0, description='times that "no error" is answered with "check again" (evaluation)')

    @property
    def max_turns(self) -> int:
        return 1 + 3 * self.max_revisions + self.forced_checks

    @property
    def max_answers(self) -> int:
        return 1 + self.max_revisions

    def with_answers(self, answers: int) -> Self:
        return self.model_copy(update={"max_revisions": answers - 1})

    def persistent(self, rounds: int) -> Self:
        return self.model_copy(update={"forced_checks": rounds})

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        if not turns:
            return TurnSpec(BacktrackPhase.ATTEMPT, self.attempt_tokens)
        last = turns[-1]
        assert last.parsed is not None  # only accepted turns are shown to the protocol
        if last.spec.phase == BacktrackPhase.DETECT:
            if last.parsed.verdict:
                satisfied = sum(bool(turn.parsed and turn.parsed.verdict) for turn in turns)
                return (
                    TurnSpec(BacktrackPhase.DETECT, self.detect_tokens)
                    if satisfied <= self.forced_checks
                    else StopReason.FINISHED
                )
            return TurnSpec(BacktrackPhase.BACKTRACK, self.backtrack_tokens)
        if last.spec.phase == BacktrackPhase.BACKTRACK:
            target = last.parsed.step or 0
            return TurnSpec(
                BacktrackPhase.REVISE, self.attempt_tokens, {"target": str(target), "next": str(target + 1)}
            )
        if sum(turn.spec.phase == BacktrackPhase.REVISE for turn in turns) >= self.max_revisions:
            return StopReason.TURN_LIMIT
        return TurnSpec(BacktrackPhase.DETECT, self.detect_tokens)

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        standing = len(standing_steps(turns))
        if phase == BacktrackPhase.DETECT:
            return _parse_verdict(text, standing)
        if phase == BacktrackPhase.BACKTRACK:
            return Parsed(step=in_range(_only(_TARGET, text, "target")[1], 0, standing - 1, "target"))
        steps, solution = parse_steps(text, first_step=standing + 1)
        if (answer := self.find_answer(solution)) is None:
            raise ProtocolViolation("missing_answer", f"{self.marked.missing} after the first step")
        return Parsed(answer=answer, steps=steps)

    def metrics(self, trajectory: Trajectory) -> dict[str, float | Share]:
        """Backtracks per trajectory; of those behind a graded answer, how many withdrew a right one."""
        withdrawn, standing = list[bool](), None
        for turn in trajectory.turns:
            if turn.spec.phase == BacktrackPhase.BACKTRACK:
                if standing is not None:
                    withdrawn.append(standing)
            elif turn.right is not None:
                standing = turn.right
        starts = len(self.moves(trajectory)["backtrack"])
        return {"backtracks": starts, "backtracks_though_right": Share(sum(withdrawn), len(withdrawn))}

    def moves(self, trajectory: Trajectory) -> dict[str, Sequence[range]]:
        """Every backtrack and the revision after it, taken together. A backtrack that ended the trajectory stands
        alone."""
        turns = trajectory.turns
        starts = [j for j, turn in enumerate(turns) if turn.spec.phase == BacktrackPhase.BACKTRACK]
        return {"backtrack": [range(j, min(j + 2, len(turns))) for j in starts]}

    def final_answer(self, turns: Sequence[Turn]) -> str | None:
        """The box of the last attempt or revision; a backtrack withdraws it."""
        return standing_answer(turns)


def parse_steps(text: str, first_step: int) -> tuple[tuple[str, ...], str]:
    """The steps of an attempt or revision, and the text from the first one on, which may hold its answer."""
    marks = list(STEP.finditer(text))
    if not marks:
        raise ProtocolViolation("missing_step", f"no line '## Step {first_step}:'")
    for expected, mark in enumerate(marks, first_step):
        if int(mark[1]) != expected:
            raise ProtocolViolation("step_order", f"step {mark[1]} where step {expected} was expected")
    starts = [mark.start() for mark in marks] + [len(text)]
    return tuple(text[a:b].strip() for a, b in pairwise(starts)), text[starts[0] :]


def _parse_verdict(text: str, standing: int) -> Parsed:
    match = _only(_VERDICT, text, "verdict")
    if match[1]:
        return Parsed(verdict=True)
    return Parsed(verdict=False, step=in_range(match[2], 1, standing, "step"))


def _only(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    """The single match of `pattern`; the marker is missing or repeated otherwise."""
    matches = pattern.finditer(text)
    first = next(matches, None)
    if first is None:
        raise ProtocolViolation(f"missing_{what}", f"no line with the {what}")
    if next(matches, None) is not None:
        raise ProtocolViolation(f"repeated_{what}", f"several lines with a {what}")
    return first


def in_range(digits: str, low: int, high: int, what: str) -> int:
    """Never clamped: a number out of range is a violation."""
    number = int(digits)  # at most three ASCII digits
    if not low <= number <= high:
        raise ProtocolViolation(f"{what}_out_of_range", f"{what} {number} is not in {low} … {high}")
    return number
