"""Three generated sets for real models, one for each way to mark an answer: what other verifiers than mathematics are
tried on, without a download. They are easy on purpose: a model of 135 M parameters solves some.

    choice/SPLIT    multiple choice: sums with four options
    words/SPLIT     text: the last word of a list
    programs/SPLIT  Python: a function of one line, with its tests

Splits hold out questions: a question's partition is a hash of its text.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass

from backtrack_mrt.data.signs import drawn_split
from backtrack_mrt.types import Problem

_WORDS = (
    "apple river stone cloud table green seven horse paper music chair bread light water tiger plant "
    "north silver garden window winter summer orange pencil bridge doctor engine forest guitar hammer "
    "island jacket kitten lemon market needle ocean pepper rabbit saddle ticket valley wagon yellow zebra"
)
_OPERATIONS: dict[str, Callable[[int, int], int]] = {"plus": operator.add, "minus": operator.sub, "times": operator.mul}


def _choice(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(2, 20), rng.randint(2, 20)
    options = rng.sample([n for n in range(a + b - 6, a + b + 7) if n != a + b], 3)
    place = rng.randrange(4)
    options.insert(place, a + b)
    lines = [f"{letter}) {option}" for letter, option in zip("ABCD", options, strict=True)]
    return "\n".join([f"What is {a} + {b}?", *lines]), "ABCD"[place]


def _words(rng: random.Random) -> tuple[str, str]:
    shown = rng.sample(_WORDS.split(), rng.randint(3, 5))
    return f"What is the last word of this list: {', '.join(shown)}?", shown[-1]


def _programs(rng: random.Random) -> tuple[str, str]:
    name, number = rng.choice(sorted(_OPERATIONS)), rng.randint(2, 99)
    tests = [f"assert f({x}) == {_OPERATIONS[name](x, number)}" for x in (0, 1, 7, -3)]
    return f"Write a Python function f(x) that returns x {name} {number}.", "\n".join(tests)


_PATIENCE = 100  # draws per problem


@dataclass(frozen=True)
class Quiz:
    """A generated set. draw: a question and its gold."""

    name: str
    draw: Callable[[random.Random], tuple[str, str]]

    def generate(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """`n` problems of a split, the same for the same arguments; questions repeat only when hardly any are left."""
        rng, problems = random.Random(f"{self.name}/{split}/{seed}"), list[Problem]()
        asked, draws = set[str](), 0
        while len(problems) < n:
            (question, gold), draws = self.draw(rng), draws + 1
            if drawn_split(question) == split and (question not in asked or draws > _PATIENCE * n):
                asked.add(question)
                problems.append(Problem(f"{self.name}/{split}/{len(problems)}", question, gold, source=self.name))
        return problems


QUIZZES = {quiz.name: quiz for quiz in (Quiz("choice", _choice), Quiz("words", _words), Quiz("programs", _programs))}
