"""Accuracy against tokens, token efficiency, and votes at equal tokens, on hand-worked trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.hand_worked import ATTEMPT, CORRECTED, ERROR_2, NO_ERROR, REVISE, TO_1, turn

from backtrack_mrt.evaluation.metrics.budgets import (
    accuracy_at_budgets,
    majority_at_tokens,
    token_efficiency,
    tokens_to_reach,
)
from backtrack_mrt.types import Parsed, Phase, Problem, Scored, StopReason, Trajectory, Turn


def problem(i: int) -> Problem:
    return Problem(f"p{i}", "q", "2")


def attempt(i: int, tokens: int, right: bool) -> Scored:
    answer = "2" if right else "1"
    only = turn(Phase.ATTEMPT, tokens, Parsed(answer=answer))
    return Scored(Trajectory(problem(i), (1,), (only,), StopReason.FINISHED, answer, float(right)))


def test_the_last_answer_given_by_then_counts() -> None:
    """Answers after 10 (wrong) and 22 (right) tokens, the end at 25."""
    curve = accuracy_at_budgets([Scored(CORRECTED)], [0, 9, 10, 21, 22, 25, 99])
    np.testing.assert_array_equal(curve, [[0, 0, 0, 0, 1, 1, 1]])


def test_an_answer_counts_while_it_is_reconsidered_and_a_violation_ends_it() -> None:
    right_first = replace(ATTEMPT, parsed=Parsed(answer="2", steps=("a", "b")), reward=1.0)
    broken = replace(
        CORRECTED,
        turns=(right_first, ERROR_2, TO_1, replace(REVISE, parsed=None, reward=None)),
        answer=None,
        outcome=0.0,
    )
    np.testing.assert_array_equal(accuracy_at_budgets([Scored(broken)], [9, 10, 16, 21, 22]), [[0, 1, 1, 1, 0]])


def test_tokens_to_reach_by_hand() -> None:
    budgets = np.array([0.0, 10.0, 20.0])
    curves = np.array([[0, 0.4, 0.8], [0, 0.2, 0.3], [0, 0.8, 0.1]])
    np.testing.assert_allclose(tokens_to_reach(curves, budgets, np.full(3, 0.6)), [15, np.nan, 7.5])


def test_twice_the_tokens_are_half_as_efficient() -> None:
    """The same trajectories with every turn twice as long, on the same problems."""

    def longer(t: Turn) -> Turn:
        completion = replace(t.completion, token_ids=t.completion.token_ids * 2, logprobs=t.completion.logprobs * 2)
        return replace(t, completion=completion)

    turns = (ATTEMPT, ERROR_2, TO_1, REVISE, NO_ERROR)
    ours = [
        Scored(replace(CORRECTED, problem=problem(i), turns=turns if i % 2 else (ATTEMPT,), outcome=float(i % 2)))
        for i in range(20)
    ]
    theirs = [Scored(replace(s.trajectory, turns=tuple(map(longer, s.trajectory.turns)))) for s in ours]
    found = token_efficiency(ours, theirs, np.arange(0.0, 101.0), shares=[0.5])
    (level, ratio), *_ = found.items()
    assert level == "0.250"
    assert ratio.mean == pytest.approx(43.5 / 21.5)  # first reached between budgets 43 and 44, 21 and 22
    assert ratio.low <= ratio.mean <= ratio.high
    assert (ratio.high - ratio.low) < 0.1  # paired: the same problems are drawn for both
    same = token_efficiency(ours, ours, np.arange(0.0, 101.0))
    assert [(e.mean, e.low, e.high) for e in same.values()] == [(1, 1, 1)] * 3


def test_policies_that_are_never_right_have_no_efficiency() -> None:
    wrong = [attempt(i, 5, False) for i in range(6)]
    assert token_efficiency(wrong, wrong, np.arange(0.0, 11.0)) == {}


def test_votes_at_equal_tokens() -> None:
    """Three samples of 10 tokens: two right, one wrong. maj@1 = 2/3, maj@2 = 2/3, maj@3 = 1."""
    scored = [attempt(i, 10, right) for i in range(6) for right in (True, True, False)]
    assert majority_at_tokens(scored, 1, 25).mean == pytest.approx((2 / 3 + 1) / 2)
    assert majority_at_tokens(scored, 1, 4).mean == pytest.approx(2 / 3)
    assert majority_at_tokens(scored, 1, 30).mean == pytest.approx(1)
    assert majority_at_tokens(scored, 1, 31).n == 0
