"""Does a trainer keep a credit per turn? Four questions to whatever makes advantages of rewards.

A *stack* is asked for the advantage of every token of a group of episodes; it is given the outcomes, and the progress
of each turn in the form that it has for such things. What is asked is whether credit arrives where it belongs, and
whether what arrives is a policy gradient: an expectation over all groups, worked out exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from backtrack_mrt.errors import UserError, short
from backtrack_mrt.types import FloatArray, as_rows

_TOKENS = 2  # of a turn; one token of the environment stands between two
_CLOSE = 1e-5
QUESTIONS = ("credit of one turn", "environment tokens", "summed progress", "when to stop")


@dataclass(frozen=True, slots=True)
class CreditedEpisode:
    """What a stack is told of an episode. progress: of every turn (E,). outcome: R. start: V_0."""

    progress: tuple[float, ...]
    outcome: float
    start: float = 0.0

    @property
    def mask(self) -> list[int]:
        """1 where the policy sampled (T,)."""
        return [int(turn >= 0) for turn in self.turns]

    @property
    def turns(self) -> list[int]:
        """The turn of every token, −1 of the environment's (T,)."""
        count = len(self.progress)
        return [turn for j in range(count) for turn in [j] * _TOKENS + [-1] * (j < count - 1)]

    @property
    def values(self) -> FloatArray:
        """V_0 … V_E."""
        return np.cumsum([self.start, *self.progress])

    @property
    def total(self) -> float:
        """Outcome and all progress."""
        return self.outcome + sum(self.progress)


class Stack(ABC):
    """What makes advantages: somebody's training code. `name`: in the table (without, its class's)."""

    name: str = ""

    @abstractmethod
    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        """Of every token of each episode, (T_i,), as they enter the loss. All episodes are of one problem."""


@dataclass(frozen=True)
class Conformance:
    """What a stack answers: by question, whether it passes, and what was seen."""

    name: str
    answers: dict[str, tuple[bool, str]]

    @property
    def keeps(self) -> bool:
        """Whether it passes all of them."""
        return all(passed for passed, _ in self.answers.values())


def conformance(stack: Stack) -> Conformance:
    """The answers of one stack."""
    asked = (_one_turn, _environment, _summed, _stopping)
    name = stack.name or type(stack).__name__
    return Conformance(name, {question: ask(stack) for question, ask in zip(QUESTIONS, asked, strict=True)})


def _advantages(stack: Stack, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    """What the stack says. Raises UserError for anything but a finite number for every token."""
    given: object = stack.advantages(group)
    lengths = [len(episode.turns) for episode in group]
    rows = as_rows(given) or []
    if [row.shape for row in rows] != [(length,) for length in lengths] or not all(np.isfinite(r).all() for r in rows):
        shown = short(given)
        reason = f"its advantages gave {shown} for {len(group)} episodes of {lengths} tokens"
        remedy = "Return an array for each, with a finite number per token."
        raise UserError("STACK", type(stack).__name__, reason, remedy)
    return rows


def _one_turn(stack: Stack) -> tuple[bool, str]:
    """Progress in the second of three turns, and nothing else: whose tokens carry it?"""
    moved, still = CreditedEpisode((0.0, 1.0, 0.0), 0.0), CreditedEpisode((0.0, 0.0, 0.0), 0.0)
    with_it, without = _advantages(stack, [moved, still])
    made = with_it - without  # what all tokens of the batch have in common, such as a mean taken off, is left out
    before, own, after = (made[np.array(moved.turns) == j] for j in range(3))
    reached = int((np.abs(own) > _CLOSE).sum())
    if np.abs(made[np.array(moved.turns) >= 0]).max() <= _CLOSE:
        return False, "lost"
    if np.ptp(made[np.array(moved.turns) >= 0]) <= _CLOSE:
        return False, "spread over all turns"
    if reached < _TOKENS:
        return False, f"on {reached} of that turn's {_TOKENS} tokens: shifted, or at one end of it"
    for when, row in (("after", after), ("before", before)):
        if np.abs(row).max() > _CLOSE and (when == "after" or (row * own[0]).min() <= _CLOSE):
            return False, f"turns {when} it have {row.mean():+.2g} where it has {own.mean():+.2g}"
    return True, "that turn and those before it" if np.abs(before).max() > _CLOSE else "that turn alone"


def _environment(stack: Stack) -> tuple[bool, str]:
    """Tokens that nobody sampled carry nothing."""
    group = [CreditedEpisode((0.25, 0.5), 1.0), CreditedEpisode((0.1, -0.1, 0.0), 0.0)]
    largest = max(
        float(np.abs(row[np.array(episode.mask) == 0]).max())
        for row, episode in zip(_advantages(stack, group), group, strict=True)
    )
    return largest < _CLOSE, "0" if largest < _CLOSE else f"up to {largest:.2g}"


def _summed(stack: Stack) -> tuple[bool, str]:
    """Episodes of one turn whose progress is R − V_0, V_0 their mean outcome: GRPO's advantages, times a number."""
    outcomes = (1.0, 1.0, 0.0, 1.0)
    mean = float(np.mean(outcomes))
    rows = _advantages(stack, [CreditedEpisode((r - mean,), r, mean) for r in outcomes])
    found, grpo = np.array([row[0] for row in rows]), np.array(outcomes) - mean
    factor = float(found @ grpo / (grpo @ grpo))
    alike = factor > 0 and bool(np.abs(found - factor * grpo).max() < 1e-3)
    return alike, f"{factor:.3g} × GRPO" if alike else "another direction"


def _stopping(stack: Stack) -> tuple[bool, str]:
    """A policy that goes on half of the time; going on pays, costs, or does neither. The expected gradient of its
    choice over all groups of two must say so."""
    slopes = []
    for pay in (1.0, -1.0, 0.0):
        stop, go = CreditedEpisode((0.0,), 0.0), CreditedEpisode((0.0, pay), pay)
        slope = 0.0
        for group in product((stop, go), repeat=2):
            rows = _advantages(stack, group)
            slope += sum(
                float(row[0]) * (0.5 if len(e.progress) > 1 else -0.5) for row, e in zip(rows, group, strict=True)
            )
        slopes.append(slope / 4)
    up, down, none = slopes
    passed = up > _CLOSE and down < -_CLOSE and abs(none) < _CLOSE and abs(up + down) < 1e-3
    return passed, f"slope {up:+.2f} where it pays, {down:+.2f} where it costs, {none:+.2f} where neither"
