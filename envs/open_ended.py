"""One free stream of thought, cut into MRT's episodes where the model turns to something new (Qu et al. 2503.07572).

The model is asked once and writes one message. Its thought (all of the message, or what comes before ``</think>``) is
cut at cue words that begin a sentence or a paragraph, or at every paragraph; each piece is a turn, with no instruction
between two of them. All cues of a completion are found when it has been sampled; where they are more than
`max_episodes` allows, as many neighbouring pieces each are merged into a turn. The stream has one answer: the last
balanced `\\boxed{…}`, after ``</think>`` if there is one. It ends when the model ends its message, and must then hold
an answer. Violations: `missing_answer` (of the last turn), and those of any protocol (`turn_too_long`, `not_text`).

Under budget forcing the end of the message is taken off, "Wait" (`wait.md`) is put behind it, and the model goes on,
`max_episodes` at most each time; the last answer counts.

In the Gymnasium environment a text is a whole message; a `Completion` with `Finish.CUT` is a piece of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, ClassVar, Self

from pydantic import Field

from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import Finish, Parsed, Problem, StopReason, Turn, TurnSpec

THINK, WAIT = "think", "wait"
_THOUGHT_END = "</think>"
_PARAGRAPH = re.compile(r"(?<=\n\n)(?=[^\n])")
_CUES = ["Wait", "But wait", "Alternatively", "Hold on", "Hmm", "Actually", "But let me", "Let me check"]
_CUES += ["Let me double-check", "Let me re-check", "Let me verify", "Let me try"]


class OpenEnded(EpisodeProtocol):
    """One message of the model, cut into episodes at cue words or paragraphs."""

    summary: ClassVar[str] = "one free stream, cut at cue words or paragraphs (R1-type models)"
    one_message: ClassVar[bool] = True
    cues: list[Annotated[str, Field(min_length=1)]] = Field(
        _CUES, min_length=1, description="words that begin an episode, at the start of a sentence or paragraph"
    )
    paragraphs: bool = Field(False, description="cut at blank lines instead of cue words")
    min_characters: int = Field(32, ge=1, description="shortest episode before a cut, in characters")
    max_episodes: int = Field(32, gt=0, description="episodes of a stream; more are merged evenly into so many")
    forced_waits: int = Field(0, ge=0, description='times that the end is answered with "Wait" (evaluation)')

    @property
    def max_turns(self) -> int:
        return (1 + self.forced_waits) * self.max_episodes

    @property
    def max_answers(self) -> int:
        return 1

    def persistent(self, rounds: int) -> Self:
        return self.model_copy(update={"forced_waits": rounds})

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        ends = [j for j, turn in enumerate(turns, 1) if turn.completion.finish is not Finish.CUT]
        if ends and ends[-1] == len(turns):
            return TurnSpec(WAIT, self.token_budget) if len(ends) <= self.forced_waits else StopReason.FINISHED
        return TurnSpec(THINK, self.token_budget) if self.turns_left(turns) else StopReason.TURN_LIMIT

    def turns_left(self, turns: Sequence[Turn]) -> int:
        since = next((n for n, t in enumerate(reversed(turns)) if t.completion.finish is not Finish.CUT), len(turns))
        return self.max_episodes - since

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        answer = self._answer([*(turn.text for turn in turns), text])
        if answer is None:
            raise ProtocolViolation("missing_answer", f"{self.marked.missing} in the whole stream")
        return Parsed(answer=answer)

    def parse_piece(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        return Parsed()

    def final_answer(self, turns: Sequence[Turn]) -> str | None:
        """Of the whole stream, also if the budget ended it."""
        return self._answer([turn.text for turn in turns])

    def _answer(self, pieces: Sequence[str]) -> str | None:
        stream = "".join(pieces)
        _, thought_ended, message = stream.partition(_THOUGHT_END)
        return self.find_answer(message if thought_ended else stream)

    def cuts(self, text: str) -> Sequence[int]:
        thought = text.find(_THOUGHT_END)
        starts = _PARAGRAPH if self.paragraphs else _cue_pattern(tuple(self.cues))
        offsets = [0]
        for mark in starts.finditer(text, 0, len(text) if thought < 0 else thought):
            if mark.start() - offsets[-1] >= self.min_characters:
                offsets.append(mark.start())
        return offsets[1:]


@cache
def _cue_pattern(cues: tuple[str, ...]) -> re.Pattern[str]:
    """A cue at the start of a line or sentence. No place needs more than the longest cue: the search is linear."""
    return re.compile(rf"(?:^|(?<=[.!?] ))(?:{'|'.join(map(re.escape, cues))})(?!\w)", re.MULTILINE)
