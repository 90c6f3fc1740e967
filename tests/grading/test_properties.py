"""Properties that hold of every text: no exception, the same verdict again, a gold equals itself."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtrack_mrt.grading import MathGrader, Verdict, check_gold, extract_boxed

RIGHT, WRONG = Verdict.RIGHT, Verdict.WRONG


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=1) as made:
        yield made


# Answers as a model writes them: pieces that mean something, glued together in any order.
_PIECES = [
    "7", "-", "+", "1,000", ".5", "/", "^", "{", "}", r"\frac", r"\sqrt", r"\pi", "x", "(", ")", "[", "]", ",", "=",
    "<", r"\le", r"\text{cm}", r"\text{ or }", r"\pm", r"\%", "$", r"\{", r"\}", r"\cup", r"\infty", "e", "!", "_8",
    " ", "A", ":",
    r"\begin{pmatrix}", r"\end{pmatrix}", "&", r"\\", "\ud800", "\x00", "７", "½",
]  # fmt: skip
_ANSWERS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(_PIECES), max_size=8).map("".join))
_SETTINGS = settings(deadline=None, max_examples=150)


@_SETTINGS
@given(gold=_ANSWERS, answer=_ANSWERS)
@example(gold="7", answer="7,")
@example(gold=r"\text{}", answer=r"\text{}")
def test_any_text_gets_the_same_verdict_twice(grader: MathGrader, gold: str, answer: str) -> None:
    first = grader.grade(gold, answer)
    grader._cache.clear()
    assert grader.grade(gold, answer) is first
    assert grader.grade(gold, extract_boxed(answer)) in Verdict


@_SETTINGS
@given(gold=_ANSWERS)
def test_a_usable_gold_equals_itself(grader: MathGrader, gold: str) -> None:
    if check_gold(gold) is None:
        assert grader.grade(gold, gold) is RIGHT
        assert grader.grade(gold, f" {gold}\n") is RIGHT


_RATIONALS = st.fractions(min_value=-1000, max_value=1000, max_denominator=64)


def _spellings(value: Fraction) -> st.SearchStrategy[str]:
    top, bottom = value.numerator, value.denominator
    fixed = [
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"\dfrac{{{2 * top}}}{{{2 * bottom}}}",
        rf"x = {top}/{bottom}",
    ]
    if bottom & (bottom - 1) == 0:  # a finite decimal
        fixed += [f"{float(value)!r}", rf"{float(value)!r}0\text{{ cm}}", rf"{float(value * 100)!r}\times 10^{{-2}}"]
    return st.sampled_from(fixed)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), first=_RATIONALS, second=_RATIONALS)
def test_rationals_are_equal_exactly_if_equal(data: st.DataObject, first: Fraction, second: Fraction) -> None:
    gold, answer = data.draw(_spellings(first)), data.draw(_spellings(second))
    assert _without_worker(gold, answer) is (RIGHT if first == second else WRONG)
    assert _without_worker(answer, gold) is _without_worker(gold, answer)
    assert _without_worker(gold, data.draw(_spellings(first))) is RIGHT


def _without_worker(gold: str, answer: object) -> Verdict:
    """The verdict, where asking a worker would be a mistake."""
    grader = MathGrader()
    verdict = grader.grade(gold, answer)  # type: ignore[arg-type]  # the wrong types are part of the tests
    assert all(worker._process is None for worker in grader._pool._workers), "a worker was started"
    return verdict
