"""The ways in which a gold can be written."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtrack_mrt.grading import MathGrader, is_canonical, surface_forms

FORMS = {
    "12": {"12.0", r"\$12"},
    "-7": {"-7.0"},
    "1234": {"1,234", "1{,}234"},
    "12,345": {"12345", "12{,}345"},
    r"\$18.50": {"18.5", r"\frac{37}{2}"},
    "0.5": {".5", "0.50", r"\frac{1}{2}", r"\frac12", "1/2"},
    r"\frac{1}{2}": {"0.5", r"\frac12", r"\dfrac{1}{2}", "1/2"},
    r"\frac12": {r"\frac{1}{2}", "0.5"},
    "-3/4": {"-0.75", r"-\frac{3}{4}", r"\frac{-3}{4}", "-.75"},
    r"\frac{14}{3}": {"14/3", r"\dfrac{14}{3}"},
    r"\text{Evelyn}": {"Evelyn"},
    "B": {r"\text{B}"},
    "x^2 + 1": {"x^2+1"},
    "(1, 2)": {"(1,2)"},
    r"\frac{\pi}{2}": {r"\dfrac{\pi}{2}"},
}


@pytest.fixture(scope="module")
def grader():
    with MathGrader(workers=1) as grader:
        yield grader


@pytest.mark.parametrize("gold", FORMS)
def test_forms_begin_with_the_gold_and_all_are_right(gold: str, grader: MathGrader) -> None:
    forms = surface_forms(gold)
    assert forms[0] == gold
    assert set(forms) >= FORMS[gold]
    assert len(forms) == len(set(forms))
    assert {form: grader.grade(gold, form).value for form in forms} == dict.fromkeys(forms, "right")


@settings(max_examples=40, deadline=None)
@given(st.fractions(Fraction(-2000), Fraction(2000), max_denominator=40))
def test_every_number_s_forms_are_right(grader: MathGrader, number: Fraction) -> None:
    forms = surface_forms(str(number))
    assert len(forms) > 2
    assert {form: grader.grade(str(number), form).value for form in forms} == dict.fromkeys(forms, "right")


@pytest.mark.parametrize("gold", ["+++-,-+--", "no solution", "1/0", "1.23.4", "", "y"])
def test_what_is_no_number_has_one_form(gold: str) -> None:
    assert surface_forms(gold) == ((gold,) if gold else ())


def test_integers_alone_have_one_usual_form() -> None:
    assert all(map(is_canonical, ["12", "-7", "1,234", "12.0", r"\$5"]))
    assert not any(map(is_canonical, ["0.5", "1/2", "x", "1, 2", r"\frac{4}{2}", ""]))
