"""Attempt and try again, as often as allowed: the protocol of RISE (Qu et al. 2407.18219).

Every turn is a whole solution and its answer, the last balanced `\\boxed{…}`, replaces the earlier one. The model is
asked to check and try again whether or not it was right, and does not decide when to stop. Violations:
`missing_answer`, and those of any protocol (`turn_too_long`, `not_text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field

from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import Parsed, Phase, Problem, StopReason, Turn, TurnSpec

RETRY = "retry"


class Retry(EpisodeProtocol):
    """An attempt and `max_retries` new ones, each of which must hold a balanced ``\\boxed{answer}``."""

    summary: ClassVar[str] = "attempt, then whole new attempts (RISE)"
    max_retries: int = Field(3, ge=0, description="new attempts after the first")
    attempt_tokens: int = Field(512, gt=0, description="longest attempt, in tokens")

    @property
    def max_turns(self) -> int:
        return 1 + self.max_retries

    def with_answers(self, answers: int) -> Self:
        return self.model_copy(update={"max_retries": answers - 1})

    def persistent(self, rounds: int) -> Self:
        return self.with_answers(self.max_answers + rounds)

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        if len(turns) > self.max_retries:
            return StopReason.FINISHED
        return TurnSpec(RETRY if turns else Phase.ATTEMPT, self.attempt_tokens)

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        answer = self.find_answer(text)
        if answer is None:
            raise ProtocolViolation("missing_answer", self.marked.missing)
        return Parsed(answer=answer)
