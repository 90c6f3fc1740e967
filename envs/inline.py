"""Backtracking search in one message, the paper's text form (Qu et al. 2503.07572, fig. 6).

The model is asked once, and backtracks by itself. Its message, all markers at the start of a line:

    attempt    `## Step 1: …`, `## Step 2: …`, numbered without gaps; then `\\boxed{answer}`
    check      any words, then one line `Backtrack to line N`, or `Backtrack to the beginning` (N = 0): line N is the
               step with that number; those after it, at least one, are discarded. Or any words and the message's end
    revise     `## Step N+1: …` and on, numbered without gaps; then `\\boxed{answer}`

Check and revision follow one another. The message is cut where a turn ends: behind the first line with a box after the
last step, or before the backtrack if there is none, and behind the line that backtracks. So the meta-prover values the
prefix before and after every backtrack. The answer is the last balanced box of its turn; a turn that is followed by a
backtrack may have none. It is the `backtrack` protocol with nothing said in between: its `detect` and `backtrack` are
the check here. A message that breaks the grammar ends the trajectory with outcome 0, under one of these names:

    missing_step         an attempt or revision without a step
    step_order           its steps are not N+1, N+2, … after the N steps that stand
    missing_answer       the message ends without a balanced box after the first step, or at a backtrack
    missing_target       steps after "Wait" without a backtrack before them
    target_out_of_range  a target that discards no step, or does not exist
    turn_too_long        (any protocol) no end within the turn's token limit
    not_text             (any protocol) the action was neither text nor a completion

The model does not know the limit of revisions. Where it goes on beyond, the rest of its message is left out, though its
tokens were drawn. Under budget forcing the message's end is taken off and "Wait" (`wait.md`) put behind it; the words
that follow are a check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field

from backtrack_mrt.envs.backtrack import STEP, in_range, parse_steps
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation, Share, standing_answer, standing_steps
from backtrack_mrt.types import Finish, Parsed, Phase, Problem, StopReason, Trajectory, Turn, TurnSpec

_TARGET = re.compile(r"^Backtrack to (?:[Ll]ine ([0-9]{1,3})|(?:the )?beginning)\.?[ \t]*$\n?", re.ASCII | re.MULTILINE)


class InlinePhase(StrEnum):
    """What a turn is for."""

    ATTEMPT = Phase.ATTEMPT.value
    CHECK = "check"
    REVISE = "revise"
    WAIT = "wait"  # a check that budget forcing has asked for


class Inline(EpisodeProtocol):
    """Attempt, checks that backtrack to a line, and revisions, all in one message of the model."""

    summary: ClassVar[str] = 'one message with "Backtrack to line N" in it (MRT\'s text form)'
    one_message: ClassVar[bool] = True
    phases: ClassVar[Mapping[str, str]] = {
        InlinePhase.CHECK: "the model checks its lines, and discards some or ends",
        InlinePhase.REVISE: "the model goes on from the lines that are left",
        InlinePhase.WAIT: "the model is made to check again",
    }
    max_revisions: int = Field(3, ge=0, description="revisions that count after the attempt")
    forced_waits: int = Field(0, ge=0, description='times that the end is answered with "Wait" (evaluation)')

    @property
    def max_turns(self) -> int:
        return 2 + 2 * self.max_revisions + self.forced_waits

    @property
    def max_answers(self) -> int:
        return 1 + self.max_revisions

    def with_answers(self, answers: int) -> Self:
        return self.model_copy(update={"max_revisions": answers - 1})

    def persistent(self, rounds: int) -> Self:
        return self.model_copy(update={"forced_waits": rounds})

    def turns_left(self, turns: Sequence[Turn]) -> int:
        """Turns are never merged: those beyond the limit are left out."""
        return self.token_budget

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        if not turns:
            return TurnSpec(InlinePhase.ATTEMPT, self.token_budget)
        last = turns[-1]
        if last.completion.finish is not Finish.CUT:
            ends = sum(turn.completion.finish is not Finish.CUT for turn in turns)
            return TurnSpec(InlinePhase.WAIT, self.token_budget) if ends <= self.forced_waits else StopReason.FINISHED
        if last.spec.phase in (InlinePhase.CHECK, InlinePhase.WAIT):
            return TurnSpec(InlinePhase.REVISE, self.token_budget)
        if sum(turn.spec.phase == InlinePhase.REVISE for turn in turns) >= self.max_revisions:
            return StopReason.TURN_LIMIT
        return TurnSpec(InlinePhase.CHECK, self.token_budget)

    def cuts(self, text: str) -> Sequence[int]:
        return [
            offset for offset in dict.fromkeys(self._turn_ends(text)) if text[:offset].strip() and text[offset:].strip()
        ]

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        if phase not in (InlinePhase.CHECK, InlinePhase.WAIT):
            parsed = self.parse_piece(phase, text, turns)
            if parsed.answer is None:
                raise ProtocolViolation("missing_answer", f"{self.marked.missing} after the first step")
            return parsed
        if _TARGET.search(text):
            raise ProtocolViolation("missing_answer", "the message ends at a backtrack")
        if STEP.search(text):
            raise ProtocolViolation("missing_target", "a step without 'Backtrack to line N' before it")
        return Parsed(verdict=True)

    def parse_piece(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        standing = len(standing_steps(turns))
        if phase not in (InlinePhase.CHECK, InlinePhase.WAIT):
            steps, solution = parse_steps(text, first_step=standing + 1)
            return Parsed(answer=self.find_answer(solution), steps=steps)
        target = _TARGET.search(text)
        if target is None:
            raise ProtocolViolation("missing_target", "a step without 'Backtrack to line N' before it")
        return Parsed(step=in_range(target[1] or "0", 0, standing - 1, "target"))

    def metrics(self, trajectory: Trajectory) -> dict[str, float | Share]:
        """Backtracks per trajectory; of those behind a graded answer, how many withdrew a right one."""
        withdrawn, standing, backtracks = list[bool](), None, 0
        for turn in trajectory.turns:
            if turn.parsed is not None and turn.parsed.step is not None:
                backtracks += 1
                if standing is not None:
                    withdrawn.append(standing)
                standing = None
            elif turn.right is not None:
                standing = turn.right
        return {"backtracks": backtracks, "backtracks_though_right": Share(sum(withdrawn), len(withdrawn))}

    def moves(self, trajectory: Trajectory) -> dict[str, Sequence[range]]:
        """Every check that backtracks and the revision after it, taken together."""
        turns = trajectory.turns
        starts = [j for j, turn in enumerate(turns) if turn.parsed is not None and turn.parsed.step is not None]
        return {"backtrack": [range(j, min(j + 2, len(turns))) for j in starts]}

    def final_answer(self, turns: Sequence[Turn]) -> str | None:
        """The box of the last attempt or revision; a backtrack withdraws it."""
        return standing_answer(turns)

    def _turn_ends(self, text: str) -> Iterator[int]:
        """Where attempt, checks and revisions of a message end."""
        start = 0
        for target in _TARGET.finditer(text):
            if (end := self._solution_end(text[start : target.start()])) is not None:
                yield start + end
            yield target.end()
            start = target.end()
        if (end := self._solution_end(text[start:])) is not None:
            yield start + end

    def _solution_end(self, text: str) -> int | None:
        """Behind the first line with an answer after the last step, or at the text's end without one; None without a
        step."""
        steps = list(STEP.finditer(text))
        if not steps:
            return None
        end = steps[-1].start()
        for line in text[end:].splitlines(keepends=True):
            end += len(line)
            if self.find_answer(line) is not None:
                break
        return end
