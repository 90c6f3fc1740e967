"""What is left to ask the worker when no rule decides, and how answers to parts make an answer to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backtrack_mrt.grading.verdict import Verdict


@dataclass(frozen=True)
class Ask:
    """What the worker must answer: all ``pairs`` equal, or (``unordered``) equal after reordering the right sides.

    near: (gold, decimal, by how much it may be off), each of which must hold, too.
    """

    pairs: tuple[tuple[str, str], ...]
    unordered: bool = False
    near: tuple[tuple[str, str, str], ...] = ()

    def request(self, rel_tol: float | None) -> dict[str, Any]:
        """The question as the worker reads it."""
        if self.unordered:
            return {"match": list(zip(*self.pairs, strict=True)), "rel_tol": rel_tol}
        return {"pairs": self.pairs, "near": self.near, "rel_tol": rel_tol}


def all_of(results: Sequence[Verdict | Ask]) -> Verdict | Ask:
    """Right if all are; otherwise the first that is not, before asking anything."""
    pairs: list[tuple[str, str]] = []
    near: list[tuple[str, str, str]] = []
    for result in results:
        if isinstance(result, Verdict):
            if result is not Verdict.RIGHT:
                return result
        elif result.unordered:
            return Verdict.UNPARSABLE  # a list in a list with unclear elements: nobody's answer
        else:
            pairs += result.pairs
            near += result.near
    return Ask(tuple(pairs), near=tuple(near)) if pairs or near else Verdict.RIGHT
