"""One free stream of thought, cut into MRT's episodes where the model turns to something new (Qu et al. 2503.07572).

The model is asked once and writes one message. Its thought (all of the message, or what comes before ``</think>``) is
cut at cue words that begin a sentence or a paragraph, or at every paragraph; each piece is a turn, with no instruction
between two of them. The stream has one answer: the last balanced `\\boxed{…}`, after ``</think>`` if there is one. It
ends when the model ends its message, and must then hold an answer. Violations: `missing_answer` (of the last turn),
and those of any protocol (`turn_too_long`, `not_text`).

In the Gymnasium environment a text is a whole message; a `Completion` with `Finish.CUT` is a piece of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, ClassVar

from pydantic import Field

from backtrack_mrt.grading.extract import extract_boxed
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import Finish, Parsed, Problem, StopReason, Turn, TurnSpec

THINK = "think"
_THOUGHT_END = "</think>"
_PARAGRAPH = re.compile(r"(?<=\n\n)(?=[^\n])")
_CUES = ["Wait", "But wait", "Alternatively", "Hold on", "Hmm", "Actually", "But let me", "Let me check"]
_CUES += ["Let me double-check", "Let me re-check", "Let me verify", "Let me try"]


class OpenEnded(EpisodeProtocol):
    """One message of the model, cut into episodes at cue words or paragraphs."""

    summary: ClassVar[str] = "one free stream, cut at cue words or paragraphs (R1-type models)"
    cues: list[Annotated[str, Field(min_length=1)]] = Field(
        _CUES, min_length=1, description="words that begin an episode, at the start of a sentence or paragraph"
    )
    paragraphs: bool = Field(False, description="cut at blank lines instead of cue words")
    min_characters: int = Field(32, ge=1, description="shortest episode before a cut, in characters")
    max_episodes: int = Field(32, gt=0, description="episodes of a stream: further cues are not cut")

    @property
    def max_turns(self) -> int:
        return self.max_episodes

    @property
    def max_answers(self) -> int:
        return 1

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        if turns and turns[-1].completion.finish is not Finish.CUT:
            return StopReason.FINISHED
        if len(turns) == self.max_episodes:
            return StopReason.TURN_LIMIT
        return TurnSpec(THINK, self.token_budget)

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        answer = _answer([*(turn.text for turn in turns), text])
        if answer is None:
            raise ProtocolViolation("missing_answer", "the stream ends without a balanced \\boxed{…}")
        return Parsed(answer=answer)

    def parse_piece(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        return Parsed()

    def final_answer(self, turns: Sequence[Turn]) -> str | None:
        """Of the whole stream, also if the budget ended it."""
        return _answer([turn.text for turn in turns])

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


def _answer(pieces: Sequence[str]) -> str | None:
    stream = "".join(pieces)
    _, thought_ended, message = stream.partition(_THOUGHT_END)
    return extract_boxed(message if thought_ended else stream)
