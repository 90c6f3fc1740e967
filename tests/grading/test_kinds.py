"""Held-out cases by kind, written before the rules: what is right is paid, what is not is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.number_kinds import NUMBER_KINDS
from support.writing_kinds import WRITING_KINDS

from backtrack_mrt.grading import MathGrader, Verdict, extract_boxed

KINDS = NUMBER_KINDS | WRITING_KINDS


def test_no_kind_hides_another() -> None:
    assert len(KINDS) == len(NUMBER_KINDS) + len(WRITING_KINDS)


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=1) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_paid(grader: MathGrader, kind: str) -> None:
    right, _ = KINDS[kind]
    verdicts = grader.grade_many(right)
    refused = [pair for pair, verdict in zip(right, verdicts, strict=True) if verdict is not Verdict.RIGHT]
    assert not refused


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_answers_are_not(grader: MathGrader, kind: str) -> None:
    _, wrong = KINDS[kind]
    verdicts = grader.grade_many(wrong)
    paid = [pair for pair, verdict in zip(wrong, verdicts, strict=True) if verdict is Verdict.RIGHT]
    assert not paid


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"The answer is $\boxed 9$.", "9"), (r"$\boxed 42$", "42"), (r"\boxed -3.5, so", "-3.5"),
        (r"\boxed \frac{1}{2}.", r"\frac{1}{2}"),
        (r"\boxed{8} no, \boxed 9", "9"), (r"\boxed 9 no, \boxed{8}", "8"), (r"\boxed x", "x"),
        (r"\boxed{7", None), (r"\boxed", None),
        (r"\boxed and", None), (r"\boxedx", None),
    ],
)  # fmt: skip
def test_a_box_of_one_token(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content
