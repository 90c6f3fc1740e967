r"""COUNTDOWN, the second embedded task: make a target of three numbers. Many answers are right, so nothing but a check
can tell: the grader is `countdown`.

A problem is ``3 5 7 = 56;``. One step of a solution is one operation; a number that was made is used in the next one::

    ## Step 1: 3 + 5 = 8;
    ## Step 2: 8 * 7 = 56;
    \boxed{(3+5)*7}

Finding the operations is a search, checking them is one look. Splits hold out problems: a problem's partition is a hash
of its numbers, in any order, and its target.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations_with_replacement, permutations
from typing import NamedTuple

from backtrack_mrt.data.signs import SPLITS, drawn_split
from backtrack_mrt.types import Problem

MAX_NUMBER = 12
MAX_VALUE = 99  # of everything that is made on the way
_QUESTION = re.compile(r"(\d+) (\d+) (\d+) = (\d+);")


class Way(NamedTuple):
    """Two operations on three numbers, the second on what the first has made: as the two steps of a solution and as an
    answer."""

    steps: tuple[str, str]
    expression: str
    value: int


def _results(left: int, right: int) -> Iterator[tuple[str, int]]:
    """What two numbers make, in this order; sums and products in one order only."""
    if left >= right:
        yield from (("+", left + right), ("*", left * right), ("-", left - right))


@lru_cache(maxsize=4096)
def ways(numbers: tuple[int, ...]) -> tuple[Way, ...]:
    """All that three numbers can make."""
    found = {}
    for left, right, rest in permutations(numbers):
        for first, made in _results(left, right):
            inner = f"({left}{first}{right})"
            for before, after, made_first in ((made, rest, True), (rest, made, False)):
                for second, value in _results(before, after):
                    if 0 < made <= MAX_VALUE and 0 < value <= MAX_VALUE:
                        steps = (f"{left} {first} {right} = {made};", f"{before} {second} {after} = {value};")
                        written = f"{inner}{second}{after}" if made_first else f"{before}{second}{inner}"
                        found[steps] = Way(steps, written, value)
    return tuple(found.values())


@lru_cache
def _problems_of(split: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The numbers and targets of a split; targets that are one of the numbers are left out."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    return tuple(
        (numbers, target)
        for numbers in combinations_with_replacement(range(1, MAX_NUMBER + 1), 3)
        for target in sorted({way.value for way in ways(numbers)} - set(numbers))
        if drawn_split(f"countdown: {sorted(numbers)}={target}") == split
    )


def generate(split: str, n: int, seed: int = 0) -> list[Problem]:
    """`n` problems of a split, the same for the same arguments; the gold is one of the solutions. After all problems of
    the split they come again, their numbers in another order."""
    rng, known = random.Random(f"countdown/{split}/{seed}"), list(_problems_of(split))
    problems, asked = list[Problem](), set[str]()
    while len(problems) < n:
        rng.shuffle(known)
        for numbers, target in known[: n - len(problems)]:
            shown = rng.sample(numbers, len(numbers))
            question = f"{' '.join(map(str, shown))} = {target};"
            if question in asked and len(asked) < len(known):
                continue
            asked.add(question)
            gold = rng.choice([way for way in ways(numbers) if way.value == target]).expression
            problems.append(Problem(f"countdown/{split}/{len(problems)}", question, gold, source="countdown"))
    return problems


def numbers_and_target(problem: Problem) -> tuple[tuple[int, ...], int] | None:
    """What a problem of this task gives; None for others."""
    found = _QUESTION.fullmatch(problem.question)
    if found is None:
        return None
    *numbers, target = map(int, found.groups())
    return tuple(sorted(numbers)), target
