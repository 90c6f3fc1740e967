"""Questions that occur twice, and held-out questions that occur in training.

Two questions are the same if they have the same words: case, spacing and punctuation do not count. One is a near copy
of another if the two share half of the runs of eight words of the one that has fewer. That finds a sentence put in
front, a formula typeset differently, a template with one other number. A single shared run, even a long one, says
little: it may be a phrase of the trade ("where m and n are relatively prime positive integers. Find m + n").
docs/measurements.md has the counts; `scripts/dev/count_duplicates.py` reproduces them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

RUN = 8
SHARE = 0.5

_WORD = re.compile(
    r"\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?"  # numbers
    r"|[^\W\d_]+|[^\w\s.,;:!?'‘’\"“”$()]"  # words, operators
)
Words = tuple[str, ...]


def words_in(question: str) -> Words:
    """The question without case, spacing and punctuation."""
    return tuple(_WORD.findall(question.lower()))


def runs(question: Words, length: int = RUN) -> set[Words]:
    """All runs of so many words."""
    return {question[i : i + length] for i in range(len(question) - length + 1)}


class Overlap:
    """Finds questions that occur among `others`."""

    def __init__(self, others: Iterable[Words], length: int = RUN) -> None:
        self.length = length
        self._others = list(dict.fromkeys(others))
        self._same = set(self._others)
        self._holders: dict[Words, list[int]] = defaultdict(list)  # run: the questions it occurs in
        self._runs: list[int] = []  # how many runs each of them has
        for index, question in enumerate(self._others):
            found = runs(question, length)
            self._runs.append(len(found))
            for run in found:
                self._holders[run].append(index)

    def has(self, question: Words) -> bool:
        """Whether the same question is among them."""
        return question in self._same

    def nearest(self, question: Words) -> tuple[float, Words]:
        """The largest share of runs in common with one of them, of the one that has fewer (0 to 1), and that one."""
        own = runs(question, self.length)
        common = Counter(holder for run in own for holder in self._holders.get(run, ()))
        shares = ((n / min(len(own), self._runs[holder]), self._others[holder]) for holder, n in common.items())
        return max(shares, default=(0.0, ()))
