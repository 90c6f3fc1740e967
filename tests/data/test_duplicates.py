"""When two questions are the same, and when one is a near copy of the other."""

from __future__ import annotations

import pytest

from backtrack_mrt.data.duplicates import Overlap, words_in


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("She has 27 seashell . How many ?", "she has 27 seashell. How many?", True),
        ("Tim’s “old” hat", "Tim's old hat", True),
        ("Give $(3,5)$.", "Give (3, 5)", True),
        ("Find $2+3$.", "Find $2-3$.", False),
        ("Find 2.5", "Find 25", False),
        ("Find 3,500", "Find 3, 500", False),
        ("Find $x^2$", "Find $x_2$", False),
    ],
)
def test_same_words(one, other, same):
    assert (words_in(one) == words_in(other)) == same


def test_overlap_is_the_share_of_the_shorter_one():
    known = words_in("a b c d e f g h i j k l")  # five runs of eight
    overlap = Overlap([words_in("z y x w v u t s r q"), known, known])
    assert overlap.has(known)
    assert not overlap.has(known[1:])
    assert overlap.nearest(known) == (1.0, known)
    assert overlap.nearest(words_in("before it: a b c d e f g h i j k l and after it")) == (1.0, known)
    assert overlap.nearest(known[:10]) == (1.0, known)
    assert overlap.nearest(words_in("a b c d e f g h i X j k l m n o p")) == (pytest.approx(2 / 5), known)
    assert overlap.nearest(words_in("a b c d e f g")) == (0.0, ())  # too short for a run
    assert Overlap([]).nearest(known) == (0.0, ())
