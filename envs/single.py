"""One attempt, no revision: the protocol of direct answering and of STaR.

The answer is the last balanced `\\boxed{…}`. Violations: `missing_answer`, and those of any protocol (`turn_too_long`,
`not_text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import Parsed, Phase, Problem, StopReason, Turn, TurnSpec


class Single(EpisodeProtocol):
    """A single attempt that must hold a balanced ``\\boxed{answer}``."""

    summary: ClassVar[str] = "one attempt (direct, STaR)"
    attempt_tokens: int = Field(512, gt=0, description="longest attempt, in tokens")

    @property
    def max_turns(self) -> int:
        return 1

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        return StopReason.FINISHED if turns else TurnSpec(Phase.ATTEMPT, self.attempt_tokens)

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        answer = self.find_answer(text)
        if answer is None:
            raise ProtocolViolation("missing_answer", self.marked.missing)
        return Parsed(answer=answer)
