"""Where the gold answer of a row stands."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal

import pytest

from backtrack_mrt.data.answers import read_gold


@pytest.mark.parametrize(
    ("value", "extract", "gold"),
    [
        ("so 3 * 4 = 12, #### no\n#### 12", "auto", "12"),
        ("#### 12\nMore words.", "hashes", "12"),
        ("So it is #### 5", "auto", "5"),
        ("It is #### 5 because 2 and 3 make just that.", "auto", "5"),
        ("#### 5 apples", "auto", "5 apples"),
        ("#### Step 1\nAdd.\n#### Step 2\nSo \\boxed{6}.", "auto", "6"),
        ("6 * 7 = 42\n#### 42\nThe answer is: 42", "auto", "42"),
        ("The answer is **$\\frac12$**.", "auto", "$\\frac12$"),
        ("Thus the final answer is 7.", "auto", "7"),
        *((absent, "auto", None) for absent in ("N/A", "None", "null", "TBD", "unknown", float("nan"), "(not found)")),
        *((elsewhere, "auto", None) for elsewhere in ("see solution", "See the explanation above", "Please see below")),
        ("It is 4. That follows from the sum.", "auto", None),
        ("no solution", "auto", "no solution"),
        ("Thus \\boxed{1}, or \\boxed{\\frac{1}{2}}. Open: \\boxed{3", "auto", "\\frac{1}{2}"),
        ("Thus \\boxed{1}.", "plain", "Thus \\boxed{1}."),
        ("So 4.", "boxed", None),
        (" 4 ", "auto", "4"),
        (4, "auto", "4"),
        (4.0, "auto", "4"),
        ("-4.0", "auto", "-4"),
        (4.25, "auto", "4.25"),
        ("4.00", "auto", "4.00"),  # as it is: perhaps dollars
        (True, "auto", None),
        (None, "auto", None),
        ([4], "auto", "4"),  # as in OlympiadBench
        (["4", "5"], "auto", None),
        *((text, "auto", "42") for text in ("Answer: 42", "**Answer:** 42", "Well.\nFinal answer = 42.")),
        ("So <answer> 42 </answer>", "auto", "42"),
        ("#### 5 blah", "hashes", "5"),
        ("The answer is 5 because 2 + 3 = 5.", "auto", "5"),
        *((f"#### {gold}", "auto", gold) for gold in ("5 or 6", "2.5 million", "3 dozen", "3 sin x", "5 x", "2 \\pi")),
        *((absent, "auto", None) for absent in ("to be determined", "[answer]", "idk", math.inf, "solution omitted")),
        *((elsewhere, "auto", None) for elsewhere in ("(see below)", "Refer to the appendix.", "TODO: fill in")),
        *((gold, "auto", gold) for gold in ("infinity", "undefined", "cannot be determined")),
        ("Proof", "auto", None),
        *(
            (text, "auto", None)
            for text in ("He has 2 + 3 = 5 apples.", "<think>so</think> 5", "#N/A", "https://a.b/c.png")
        ),
        *((text, "auto", "5") for text in ('["5"]', ["5"])),
        ({"value": "5"}, "auto", None),
        (Decimal("4.25"), "auto", "4.25"),
        (b"4", "auto", None),
    ],
)
def test_answers_are_extracted(value, extract, gold):
    found, why = read_gold(value, extract)
    assert (found if why is None else None) == gold
    assert (why is None) == (gold is not None)


def test_a_solution_without_a_mark_is_no_answer():
    assert read_gold("Two and two make 4.", "auto", solution=True)[1] == r"has neither #### nor \boxed{}"
    assert read_gold("4", "auto", solution=True) == ("4", None)  # as TRL's rows have it
    assert read_gold("It is \\boxed{4}.", "auto", solution=True) == ("4", None)


def test_a_placeholder_is_refused_by_name():
    assert read_gold("N/A", "auto")[1] == "is no answer but says so: N/A"
    assert read_gold("see solution", "auto")[1] == "says where the answer is, not what it is: see solution"
    assert read_gold("It is 4. That follows.", "auto")[1] == "is several sentences"


def test_a_solution_may_say_its_answer_in_words():
    assert read_gold("2 + 2 = 4. The answer is: 4", "auto", solution=True) == ("4", None)


def test_what_is_no_text_is_named() -> None:
    assert read_gold(date(2020, 1, 1), "auto") == ("", "is no text but of the type date")
