"""Which step of a solution is the first wrong one, for the problems that can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backtrack_mrt.data import signs
from backtrack_mrt.types import Problem

_TERM = re.compile(r"([+-])([0-9]+)")


def signed_terms(step: str) -> list[tuple[str, str]]:
    """Signs and numbers of a SIGNS step, without the total behind the equals sign."""
    return _TERM.findall(step.partition(":")[2].partition("=")[0])


def first_wrong_step(problem: Problem, steps: Sequence[str]) -> int | None:
    """Number of the first wrong or missing step (1-based), one more than there are steps if all are right, None for
    problems whose steps cannot be checked. Used by metrics only; the model is never told."""
    if problem.source != "signs":
        return None
    blocks = signs.parse_problem(problem)
    for number, (block, step) in enumerate(zip(blocks, steps, strict=False), 1):
        if signed_terms(step) != [(sign, str(n)) for sign, n in zip(block.signs, block.numbers, strict=True)]:
            return number
    return min(len(steps), len(blocks)) + 1
