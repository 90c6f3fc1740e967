r"""Countdown: any expression in + − × ÷ and brackets that uses the given numbers, each once, and reaches the target.

The gold says what is given, in one of three ways: a solution (``(8-5)*9``: its numbers, its value); the numbers and the
target (``{"numbers": [5, 8, 9], "target": 27}``); or the target alone, with the numbers in the question. The answer
stands in the last ``\boxed{}``; ``= target`` may follow it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from pydantic import Field

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading.arithmetic import evaluated
from backtrack_mrt.grading.verdict import Verdict
from backtrack_mrt.types import Problem

_MOST_CHARACTERS = 200
_SIGNS = {r"\times": "*", r"\cdot": "*", r"\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}
_SIGNS |= {r"\left": "", r"\right": ""}
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_WRITTEN = re.compile(r"[0-9+\-*/() ]+")
_NUMERAL = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Given:
    """The numbers that are to be used, and the target."""

    numbers: tuple[int, ...]
    target: Fraction


class Countdown(Grader):
    """Any expression that uses the given numbers and reaches the target."""

    summary: ClassVar[str] = "any expression that uses the given numbers reaches the target"
    golds_are_answers: ClassVar[bool] = False
    all_numbers: bool = Field(True, description="every number must be used, not only none twice")

    def judge(self, problem: Problem, answer: str) -> Verdict | float:
        given = given_in(problem)
        if given is None:
            return Verdict.UNPARSABLE
        left, *sides = plain_expression(answer).split("=")
        read = [expression_value(side) for side in (left, *sides)]
        if any(side is None for side in read) or len(sides) > 1:
            return Verdict.UNPARSABLE
        used, there = Counter(map(int, _NUMERAL.findall(left))), Counter(given.numbers)
        allowed = used == there if self.all_numbers else used <= there
        return float(allowed and all(value == given.target for value in read))

    def check_gold(self, gold: str) -> str | None:
        if _read_gold(gold) is None and not _NUMERAL.fullmatch(gold.strip().lstrip("-")):
            return f"is neither a solution, nor numbers and a target, nor a target: {gold[:40]}"
        return None


def plain_expression(text: str) -> str:
    """The expression with the signs of a keyboard."""
    text = text.strip().strip("$") if len(text) <= _MOST_CHARACTERS else ""
    for written, plain in _SIGNS.items():
        text = text.replace(written, plain)
    return _FRACTION.sub(r"((\1)/(\2))", text)


def expression_value(expression: str) -> Fraction | None:
    """The exact value of an expression in + - * / and brackets; None for anything else, and for a division by zero."""
    expression = expression.strip()
    return evaluated(expression) if _WRITTEN.fullmatch(expression) and len(expression) <= _MOST_CHARACTERS else None


def given_in(problem: Problem) -> Given | None:
    """What a problem gives; None where it cannot be told."""
    given = _read_gold(problem.answer)
    if given is not None:
        return given
    try:
        target = int(problem.answer)
    except ValueError:
        return None
    numbers = Counter(map(int, _NUMERAL.findall(problem.question)))
    numbers[abs(target)] -= 1  # the question names the target, too
    left = tuple(numbers.elements())
    return Given(left, Fraction(target)) if left else None


@lru_cache(maxsize=4096)
def _read_gold(gold: str) -> Given | None:
    """The numbers and the target that the gold holds by itself."""
    gold = gold.strip()
    if gold.startswith("{"):
        try:
            row = json.loads(gold)
            numbers, target = row.get("numbers", row.get("nums")), row["target"]
            whole = [number for number in numbers if type(number) is int and number >= 0]
            if not whole or len(whole) < len(numbers) or type(target) is bool:
                return None
            return Given(tuple(whole), Fraction(target))
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
    expression, equals, stated = plain_expression(gold).partition("=")
    numbers = tuple(map(int, _NUMERAL.findall(expression)))
    value = expression_value(expression) if len(numbers) > 1 else None
    return None if value is None or (equals and expression_value(stated) != value) else Given(numbers, value)
