"""Which rows of weighted cross-entropy make an update."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from backtrack_mrt.training.supervised import Example, in_order

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=40)


def rows_of(widths: list[int]) -> list[Example]:
    """Rows of these lengths, told apart by their first token."""
    return [
        Example(input_ids=[number] + [0] * (width - 1), weights=[1.0] * width) for number, width in enumerate(widths)
    ]


@given(lengths, st.integers(1, 8), st.integers(1, 4), st.integers(0, 9))
def test_every_row_comes_once_a_pass(widths: list[int], per_update: int, epochs: int, seed: int) -> None:
    rows = rows_of(widths)
    ordered = in_order(rows, per_update, epochs, seed)
    assert Counter(row["input_ids"][0] for row in ordered) == dict.fromkeys(range(len(rows)), epochs)
    assert ordered == in_order(rows, per_update, epochs, seed)


@given(lengths, st.integers(1, 8), st.integers(0, 9))
def test_the_updates_of_a_pass_are_of_like_length(widths: list[int], per_update: int, seed: int) -> None:
    ordered = in_order(rows_of(widths), per_update, 1, seed)
    full = len(ordered) - len(ordered) % per_update
    updates = [[len(row["input_ids"]) for row in ordered[k : k + per_update]] for k in range(0, full, per_update)]
    updates.sort(key=lambda update: (min(update), max(update)))
    assert all(max(one) <= min(other) for one, other in itertools.pairwise(updates))


@given(lengths, st.integers(1, 8))
def test_without_passes_they_come_as_they_are(widths: list[int], per_update: int) -> None:
    rows = rows_of(widths)
    ordered = in_order(rows, per_update, None, 0)
    for k in range(0, len(rows), per_update):
        assert (
            sorted(row["input_ids"][0] for row in ordered[k : k + per_update])
            == list(range(len(rows)))[k:][:per_update]
        )


def test_passes_differ() -> None:
    rows = rows_of(list(range(1, 13)))
    one, other = (in_order(rows, 3, 2, 0)[k : k + 12] for k in (0, 12))
    assert one != other
