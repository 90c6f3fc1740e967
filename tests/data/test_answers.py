"""Where the gold answer of a row stands."""

from __future__ import annotations

import pytest

from backtrack_mrt.data.answers import read_gold


@pytest.mark.parametrize(
    ("value", "extract", "gold"),
    [
        ("so 3 * 4 = 12, #### no\n#### 12", "auto", "12"),
        ("#### 12\nMore words.", "hashes", None),
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
        ([4], "auto", None),
        ("Proof", "auto", None),
    ],
)
def test_answers_are_extracted(value, extract, gold):
    found, why = read_gold(value, extract)
    assert (found if why is None else None) == gold
    assert (why is None) == (gold is not None)


def test_a_solution_without_a_mark_is_no_answer():
    assert read_gold("It is 4.", "auto", solution=True)[1] == r"has neither #### nor \boxed{}"
    assert read_gold("It is \\boxed{4}.", "auto", solution=True) == ("4", None)
