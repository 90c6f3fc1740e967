"""What a grade can be."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of grading one answer. Only `RIGHT` earns a reward; the other four are kept apart for the logs.

    RIGHT: equal to the gold.  WRONG: readable and not equal.  UNEVALUATED: equal, but left as a calculation where a
    numeral is asked for (`Grader.forms`).  UNPARSABLE: no answer, or one that a guard or the parser refuses.
    TIMEOUT: the comparison ran out of its time or memory, so nothing is known about the answer.
    """

    RIGHT = "right"
    WRONG = "wrong"
    UNEVALUATED = "unevaluated"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
