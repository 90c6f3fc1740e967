"""Unevaluated answers: paid by the grader of evaluation, not by the one of training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from backtrack_mrt.grading import MathGrader, Verdict

RIGHT, WRONG, UNEVALUATED = Verdict.RIGHT, Verdict.WRONG, Verdict.UNEVALUATED


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=1) as made:
        yield made


UNDONE = [
    ("2", "16-14"), ("24", "48/2"), ("24", r"\frac{48}{2}"), ("120", "5!"), ("120", r"\binom{10}{3}"),
    ("3", r"\log_2 8"),
    ("7", r"\max(3,7)"), ("7", r"\lfloor \sqrt{50} \rfloor"), ("7", r"\sqrt{49}"), ("343", "7^3"),
    ("12", r"3 \times 4"),
    ("12", "3*4"), ("0.5", "1-0.5"), ("-2", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}"),
    ("1", r"\sin^2 x+\cos^2 x"), ("12", "x = 3 + 9"),
    ("5", "|-5|"), (r"\frac{5}{6}", r"\frac{1}{2}+\frac{1}{3}"), ("10", "10^2/10"),
]  # fmt: skip
DONE = [
    ("2", "2"), ("2", "2.0"), ("1234", "1,234"), ("0.5", r"\frac{1}{2}"), (r"\frac{1}{2}", "2/4"),
    ("0.5", r"50\%"), ("1000", "10^3"),
    ("0.001", "10^{-3}"), ("4500", r"4.5 \times 10^3"), ("4500", "4.5e3"), ("1.5", r"1\frac{1}{2}"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    ("5", "five"), ("18", r"\$18.00"), ("18", "18 dollars"), ("5", "x = 5"), ("12", "3 + 9 = 12"),
    (r"\frac{1}{3}", r"\frac13 \approx 0.333"),
    ("3000000", "3 million"), ("-7", "−7"), ("7", "$7$."), ("7", r"\{7\}"), ("90", r"90^\circ"),
    # No plain numeral, no rule: any form of these is right.
    ("2^{10}", "4^5"), (r"2\sqrt{2}", r"\sqrt{8}"), ("x+1", "1+x"), ("2516_8", "2516"), ("A", "(A)"), ("1,2",
    "2, 1"), ("+-", "+-"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), UNDONE)
def test_a_calculation_left_undone(grader: MathGrader, gold: str, answer: str) -> None:
    assert grader.grade(gold, answer) is RIGHT
    assert grader.grade(gold, answer, forms="numeral") is UNEVALUATED
    assert grader.grade_many([(gold, answer), (gold, gold)], forms="numeral") == [UNEVALUATED, RIGHT]


@pytest.mark.parametrize(("gold", "answer"), DONE)
def test_a_numeral_in_any_form(grader: MathGrader, gold: str, answer: str) -> None:
    assert grader.grade(gold, answer) is RIGHT
    assert grader.grade(gold, answer, forms="numeral") is RIGHT


def test_what_is_wrong_stays_wrong(grader: MathGrader) -> None:
    strict = partial(grader.grade, forms="numeral")
    assert strict("2", "16-13") is WRONG
    assert strict("2", "3") is WRONG
    assert strict("2", None) is Verdict.UNPARSABLE
    assert strict("2", "16-14") is UNEVALUATED  # and the memory they share keeps the two apart
    assert grader.grade("2", "16-14") is RIGHT
    assert strict("2", "16-14") is UNEVALUATED
