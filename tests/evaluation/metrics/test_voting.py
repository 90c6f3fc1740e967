"""pass@k and maj@k against hand counts and brute force."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hand_worked import ATTEMPT, CORRECTED

from backtrack_mrt.evaluation.metrics.voting import Ballot, ballots, majority, pass_at_k, voting_curves
from backtrack_mrt.types import Problem, Scored, StopReason


@pytest.mark.parametrize(
    ("n", "c", "k", "share"),
    [(4, 1, 1, 0.25), (4, 1, 2, 0.5), (4, 2, 2, 5 / 6), (4, 0, 4, 0), (4, 3, 2, 1), (3, 3, 1, 1)],
)
def test_pass_at_k_by_hand(n: int, c: int, k: int, share: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(share)


def test_majority_by_hand() -> None:
    # Two right, one wrong. One of three: 2/3. Of the pairs, one is right twice, two are a tie. All: right.
    np.testing.assert_allclose(majority(Ballot(2, (1,))), [2 / 3, (1 + 0.5 + 0.5) / 3, 1])
    # One right, two that agree on a wrong answer.
    np.testing.assert_allclose(majority(Ballot(1, (2,))), [1 / 3, (0.5 + 0.5 + 0) / 3, 0])
    # Two wrong answers that differ are no majority: three answers tie.
    np.testing.assert_allclose(majority(Ballot(1, (1, 1)))[-1], 1 / 3)
    # A sample without an answer does not vote; alone it is wrong.
    np.testing.assert_allclose(majority(Ballot(1, (), 1)), [0.5, 1])


def brute_force(votes: list[str | None], k: int) -> float:
    """Over all subsets of k votes, the chance that "right" wins a uniform draw among the most frequent answers."""
    won = []
    for subset in combinations(votes, k):
        counts = Counter(vote for vote in subset if vote is not None)
        top = [vote for vote, count in counts.items() if count == max(counts.values())]
        won.append(("right" in top) / len(top) if top else 0.0)
    return float(np.mean(won))


@given(st.lists(st.sampled_from(["right", "a", "b", "c", None]), min_size=1, max_size=7))
def test_majority_is_the_average_over_subsets(votes: list[str | None]) -> None:
    wrong = Counter(vote for vote in votes if vote not in ("right", None))
    ballot = Ballot(votes.count("right"), tuple(wrong.values()), votes.count(None))
    expected = [brute_force(votes, k) for k in range(1, len(votes) + 1)]
    np.testing.assert_allclose(majority(ballot), expected, atol=1e-12)


def test_many_samples_stay_exact() -> None:
    shares = majority(Ballot(100, (60, 40, *[1] * 40), 16))
    assert shares.shape == (256,)
    assert shares[0] == pytest.approx(100 / 256)
    assert shares[-1] == 1
    assert np.all((shares >= 0) & (shares <= 1 + 1e-9))


def test_ballots_are_cast_at_the_limit() -> None:
    """Right answers count together however they are written; a violation leaves a blank."""
    wrong = replace(CORRECTED, turns=(ATTEMPT,), answer="1", outcome=0.0, stop=StopReason.TURN_LIMIT)
    written = replace(CORRECTED, answer="2.0")
    broken = replace(CORRECTED, answer=None, outcome=0.0, stop=StopReason.VIOLATION)
    scored = [Scored(t) for t in (CORRECTED, wrong, written, broken)]
    assert ballots(scored, limit=3) == [Ballot(2, (1,), 1)]
    assert ballots(scored, limit=1) == [Ballot(0, (4,))]
    passed, voted = voting_curves(ballots(scored, limit=3))
    np.testing.assert_allclose(passed, [[0.5, 5 / 6, 1, 1]])
    assert voted[0, 0] == 0.5


def test_the_curves_end_at_the_fewest_samples() -> None:
    other = replace(CORRECTED, problem=Problem("other", "q", "2"))
    passed, voted = voting_curves(ballots([Scored(t) for t in (CORRECTED, other, CORRECTED)], limit=3))
    assert passed.shape == voted.shape == (2, 1)
