"""Solutions as steps of one equation each, written ones or worked out, and plausible errors in them.

A step is a line such as ``Natalia sold 48/2 = 24 clips in May.``: exactly one equation, of numbers, and a right one.
Then an error can be put in anywhere, and the steps after it can follow the wrong value.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations

from backtrack_mrt.grading.arithmetic import evaluated

_NUMBER = r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
_OPERAND = rf"\(*\$?{_NUMBER}\)*"
_EQUATION = re.compile(  # no chain (1+2+3 = 3+3 = 6), no unit within (2 hats + 3), no percent sign
    rf"(?<![\w.,/*+=)-])(?P<left>{_OPERAND}(?:\s*[-+*/x×÷]\s*{_OPERAND})+)(?P<equals>\s*=\s*\$?)(?P<value>{_NUMBER})"
    r"(?!\d|\s*[-+*/×÷%=])"
)
_TOKEN = re.compile(rf"(?<![\d.,]){_NUMBER}(?!\d)")
_OPERATION = re.compile(r"(?<=[\d)])(\s*)([-+*/x×÷])(?=\s*[$(\d.])")
_MISTAKEN = {"+": "-", "-": "+", "*": "/", "x": "/", "×": "÷", "/": "*", "÷": "×"}  # the operation taken for another


@dataclass(frozen=True, slots=True)
class Step:
    """A step in pieces: what is ``before`` its equation, the ``left`` side, ``equals`` (with blanks and $), the
    ``value``, and what comes ``after``."""

    before: str
    left: str
    equals: str
    value: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.left + self.equals + self.value + self.after

    @property
    def equation(self) -> str:
        return self.left + self.equals + self.value


def parse_step(line: str) -> Step | None:
    """The line as a step; None unless it has exactly one equation, and that is right."""
    match = _EQUATION.search(line)
    if match is None or line.count("=") != 1 or exact_value(match["left"]) != number(match["value"]):
        return None
    return Step(line[: match.start()], match["left"], match["equals"], match["value"], line[match.end() :])


def one_operation(question: str, answer: str) -> Step | None:
    """The step that gets from numbers of the question to its answer: an operation on two of them, or the sum of all.
    None unless exactly one does (2 + 2 and 2 * 2 are two)."""
    given, wanted = _TOKEN.findall(question), number(answer)
    pairs = [(a, b) for i, a in enumerate(given) for j, b in enumerate(given) if i != j]
    lefts = [f"{a} {sign} {b}" for a, b in pairs for sign in "-/"]
    lefts += [f"{a} {sign} {b}" for a, b in combinations(given, 2) for sign in "+*"]
    if len(given) > 2:
        lefts.append(" + ".join(given))
    found = {left for left in lefts if exact_value(left) == wanted}
    if wanted is None or len(found) != 1:
        return None
    return parse_step(f"{found.pop()} = {answer}")


def number(text: str) -> Fraction | None:
    """The value of a plain number such as 1,200.50, None if it is none."""
    return Fraction(text.replace(",", "")) if re.fullmatch(_NUMBER, text) else None


def exact_value(expression: str) -> Fraction | None:
    """Exact value of an expression in + - * / (also x × ÷) and parentheses; None if it has none."""
    return evaluated(re.sub(r"[$,\s]", "", expression).translate(str.maketrans("x×÷", "**/")))


def wrong_solution(steps: Sequence[Step], wrong: int, rng: random.Random) -> list[Step] | None:
    """The steps with an error in number `wrong` (0-based) and its consequences in those after it; the last value is
    then wrong too. None if there is no such error with ordinary numbers."""
    variants = list(_mistakes(steps[wrong]))
    rng.shuffle(variants)
    for variant in variants:
        solution = _followed(steps, wrong, variant)
        if solution is not None and number(solution[-1].value) != number(steps[-1].value):
            return solution
    return None


def _mistakes(step: Step) -> Iterator[Step]:
    """Plausible wrong versions of a step: a slip in the result, or the wrong operation carried out correctly."""
    right = number(step.value)
    assert right is not None
    unit = Fraction(1, 10 ** len(step.value.partition(".")[2]))  # of the last digit
    for slip in (right + unit, right - unit, right + 10 * unit, right - 10 * unit, right + 2 * unit, right - 2 * unit):
        if (written := _written(slip)) is not None:
            yield replace(step, value=written)
    for mark in _OPERATION.finditer(step.left):
        left = step.left[: mark.start(2)] + _MISTAKEN[mark[2]] + step.left[mark.end(2) :]
        result = exact_value(left)
        if result is not None and result != right and (written := _written(result)) is not None:
            yield replace(step, left=left, value=written)


def _followed(steps: Sequence[Step], wrong: int, variant: Step) -> list[Step] | None:
    """`variant` in place of step `wrong`, and the later steps worked out with the numbers that this changes."""
    changed: dict[Fraction, str] = {}

    def note(old: str, new: str) -> None:
        value = number(old)
        assert value is not None
        if value != number(new):
            changed[value] = new

    note(steps[wrong].value, variant.value)
    solution = [*steps[:wrong], replace(variant, after=_renumbered(variant.after, changed))]
    for step in steps[wrong + 1 :]:
        before, left = _renumbered(step.before, changed), _renumbered(step.left, changed)
        value: str | None = step.value
        if left != step.left:
            result = exact_value(left)
            value = None if result is None else _written(result)
        if value is None:
            return None
        note(step.value, value)
        solution.append(Step(before, left, step.equals, value, _renumbered(step.after, changed)))
    return solution


def _renumbered(text: str, changed: Mapping[Fraction, str]) -> str:
    return _TOKEN.sub(lambda match: changed.get(Fraction(match[0].replace(",", "")), match[0]), text)


def _written(value: Fraction) -> str | None:
    """A positive number with at most two decimals, as people write it; None for another."""
    if value <= 0 or (100 * value).denominator != 1:
        return None
    return str(value) if value.denominator == 1 else f"{float(value):.2f}".rstrip("0")
