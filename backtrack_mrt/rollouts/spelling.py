r"""All the tokens in which a forced answer can be right: what the likelihood of an answer sums over.

The forced answer is begun up to ``\boxed{`` (or another marker). The model answers y when its text goes on with y and a
closing brace. Few models have one token for that brace: ``}``, ``}$``, ``}.\n`` and many more begin with it, and where
y itself ends in a brace, ``}}`` does both. A line also ends with the message. So a spelling is some tokens and a set:
the tokens that may come last. The token sequences of different spellings are different, and none begins another: their
probabilities add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.grading.markers import BOXED
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.types import Problem, TokenIds

Surfaces = Callable[[Problem], Sequence[str]]  # how a problem's right answers are written


@dataclass(frozen=True, slots=True)
class Spelling:
    """ids: the answer and a token that closes the box. endings: the tokens that may stand in the last one's place,
    itself among them."""

    ids: TokenIds
    endings: TokenIds

    def begins(self, ids: TokenIds) -> bool:
        """Whether an answer begins with this spelling."""
        last = len(self.ids) - 1
        return len(ids) > last and ids[:last] == self.ids[:last] and ids[last] in self.endings


class Vocabulary:
    """Token ids by the text with which their tokens begin. `pieces`: the text of each."""

    def __init__(self, pieces: Mapping[int, str]) -> None:
        self._sorted = sorted((text, token) for token, text in pieces.items())
        self._spaced = sorted((text.lstrip(), token) for token, text in pieces.items() if text[:1].isspace())

    def beginning_with(self, text: str) -> TokenIds:
        """Sorted ids of all tokens that begin with `text`; before a closing brace, blanks are nothing."""
        found = set(_beginning_with(self._sorted, text))
        if text.startswith(BOXED.closing):
            found |= set(_beginning_with(self._spaced, text))
        return tuple(sorted(found))


def _beginning_with(rows: list[tuple[str, int]], text: str) -> Iterator[int]:
    for at in range(bisect_left(rows, (text, -1)), len(rows)):
        if not rows[at][0].startswith(text):
            return
        yield rows[at][1]


class Speller:
    """The spellings of right answers behind the text with which the dialogue begins a forced answer; `surfaces` says
    how they are written."""

    def __init__(self, dialogue: Dialogue, surfaces: Surfaces = MATH.spellings) -> None:
        self.chat, self.marker, self.begun = dialogue.chat, dialogue.marker, dialogue.force_prefix
        self.surfaces = surfaces
        self._vocabulary: Vocabulary | None = None
        self._known: dict[tuple[str, ...], tuple[Spelling, ...]] = {}

    def spellings(self, problem: Problem) -> tuple[Spelling, ...]:
        """The ways in which the tokenizer itself writes the right answers, and their shorter beginnings where one token
        does all the rest."""
        given = self.surfaces(problem)
        if not isinstance(given, list | tuple) or not given or not all(isinstance(text, str) for text in given):
            reason = f"these are its spellings of {problem.answer!r}"
            raise UserError("grader", given, reason, "Return a tuple of texts, at least one.")
        surfaces = tuple(given)
        if surfaces not in self._known:
            self._known[surfaces] = tuple(self._spelled(surfaces))
        return self._known[surfaces]

    def _spelled(self, surfaces: tuple[str, ...]) -> Iterator[Spelling]:
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.chat.pieces)
        endings: dict[TokenIds, set[int]] = {}
        usual: dict[TokenIds, int] = {}
        lead, closing = self.marker.lead, self.marker.closing
        for text in (lead + surface + closing for surface in surfaces):
            for ids in self._tokenised(text):
                for length in range(len(ids)):
                    body = ids[:length]
                    said = self._read(body)
                    if not text.startswith(said):
                        continue
                    found = self._vocabulary.beginning_with(text[len(said) :])
                    if text[len(said) :] == closing and self.marker.ended_by_message:
                        found = tuple(sorted({*found, *self.chat.stop_ids}))
                    if found:
                        endings.setdefault(body, set()).update(found)
                        if ids[length] in found:
                            usual.setdefault(body, ids[length])
        if not endings:  # a tokenizer whose texts do not add up
            ids = self.chat.encode(lead + surfaces[0] + closing)
            endings, usual = {ids[:-1]: {ids[-1]}}, {ids[:-1]: ids[-1]}
        for body, last in endings.items():
            yield Spelling((*body, usual.get(body, min(last))), tuple(sorted(last)))

    def _tokenised(self, text: str) -> set[TokenIds]:
        """The tokens of the text behind the begun answer: whole, and with an ending of its own. A tokenizer may write
        the joint with one token that the begun answer already has half of: then the text is taken alone."""
        written, closing = set(), self.marker.closing
        for end in (closing, ""):
            before = self.chat.encode(self.begun)
            whole = text.removesuffix(closing) + end
            ids = self.chat.encode(self.begun + whole)
            ids = ids[len(before) :] if ids[: len(before)] == before else self.chat.encode(whole)
            written.add(ids if end else ids + self.chat.encode(closing))
        return written

    def _read(self, ids: TokenIds) -> str:
        """The text of tokens behind the begun answer."""
        before = self.chat.encode(self.begun)
        return self.chat.decode(before + ids)[len(self.chat.decode(before)) :]
