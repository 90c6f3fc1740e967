r"""All the tokens in which a forced answer can be right: what the likelihood of an answer sums over.

The forced answer is begun up to ``\boxed{``. The model answers y when its text goes on with y and a closing brace. Few
models have one token for that brace: ``}``, ``}$``, ``}.\n`` and many more begin with it, and where y itself ends in a
brace, ``}}`` does both. So a spelling is some tokens and a set: the tokens that may come last. The token sequences of
different spellings are different, and none begins another: their probabilities add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from backtrack_mrt.grading import surface_forms
from backtrack_mrt.rollouts.chat import Chat
from backtrack_mrt.types import TokenIds

CLOSING = "}"


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
        if text.startswith(CLOSING):
            found |= set(_beginning_with(self._spaced, text))
        return tuple(sorted(found))


def _beginning_with(rows: list[tuple[str, int]], text: str) -> Iterator[int]:
    for at in range(bisect_left(rows, (text, -1)), len(rows)):
        if not rows[at][0].startswith(text):
            return
        yield rows[at][1]


class Speller:
    """The spellings of golds behind `begun`, the text with which a forced answer is begun."""

    def __init__(self, chat: Chat, begun: str) -> None:
        self.chat, self.begun = chat, begun
        self._vocabulary: Vocabulary | None = None
        self._known: dict[str, tuple[Spelling, ...]] = {}

    def spellings(self, gold: str) -> tuple[Spelling, ...]:
        """The ways in which the tokenizer itself writes the gold's surface forms, and their shorter beginnings where
        one token does all the rest."""
        if gold not in self._known:
            self._known[gold] = tuple(self._spelled(gold))
        return self._known[gold]

    def _spelled(self, gold: str) -> Iterator[Spelling]:
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.chat.pieces)
        endings: dict[TokenIds, set[int]] = {}
        usual: dict[TokenIds, int] = {}
        for text in (form + CLOSING for form in surface_forms(gold)):
            for ids in self._tokenised(text):
                for length in range(len(ids)):
                    body = ids[:length]
                    said = self._read(body)
                    if not text.startswith(said):
                        continue
                    if found := self._vocabulary.beginning_with(text[len(said) :]):
                        endings.setdefault(body, set()).update(found)
                        if ids[length] in found:
                            usual.setdefault(body, ids[length])
        if not endings:  # a tokenizer whose texts do not add up
            ids = self.chat.encode(gold + CLOSING)
            endings, usual = {ids[:-1]: {ids[-1]}}, {ids[:-1]: ids[-1]}
        for body, last in endings.items():
            yield Spelling((*body, usual.get(body, min(last))), tuple(sorted(last)))

    def _tokenised(self, text: str) -> set[TokenIds]:
        """The tokens of the text behind the begun answer: whole, and with a brace of its own. A tokenizer may write
        the joint with one token that the begun answer already has half of: then the text is taken alone."""
        written = set()
        for end in (CLOSING, ""):
            before = self.chat.encode(self.begun)
            whole = text.removesuffix(CLOSING) + end
            ids = self.chat.encode(self.begun + whole)
            ids = ids[len(before) :] if ids[: len(before)] == before else self.chat.encode(whole)
            written.add(ids if end else ids + self.chat.encode(CLOSING))
        return written

    def _read(self, ids: TokenIds) -> str:
        """The text of tokens behind the begun answer."""
        before = self.chat.encode(self.begun)
        return self.chat.decode(before + ids)[len(self.chat.decode(before)) :]
