"""What a grade can be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of grading one answer, kept apart for the logs. `RIGHT` earns 1, `PARTIAL` what its grader says, the
    others nothing.

    RIGHT: equal to the gold, or whatever the grader asks for.  PARTIAL: a reward between 0 and 1.  WRONG: readable and
    not right.  UNEVALUATED: equal, but left as a calculation where a numeral is asked for.  UNPARSABLE: no answer, or
    one that a guard or the parser refuses.  TIMEOUT: the grader ran out of its time or memory.
    """

    RIGHT = "right"
    PARTIAL = "partial"
    WRONG = "wrong"
    UNEVALUATED = "unevaluated"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict, and the reward that it earns, from 0 to 1."""

    verdict: Verdict
    reward: float


def grade_of(judged: Verdict | float) -> Grade:
    """The grade for what a grader says: a verdict, or a reward. Raises ValueError for what is neither."""
    if isinstance(judged, Verdict):
        if judged is Verdict.PARTIAL:
            raise ValueError("a partial verdict says nothing without its reward")
        return Grade(judged, float(judged is Verdict.RIGHT))
    if isinstance(judged, str) or not 0 <= float(judged) <= 1:  # also refuses NaN
        raise ValueError(f"{judged!r} is no reward")
    reward = float(judged)
    verdict = Verdict.RIGHT if reward == 1 else Verdict.WRONG if reward == 0 else Verdict.PARTIAL
    return Grade(verdict, reward)
