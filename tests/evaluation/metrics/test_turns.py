"""Metrics on hand-worked trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hand_worked import ATTEMPT, CORRECTED, turn

from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.evaluation.metrics.estimates import ProblemIndex, bootstrap, per_problem, ratio_estimates
from backtrack_mrt.evaluation.metrics.logged import rollout_metrics
from backtrack_mrt.evaluation.metrics.turns import (
    answers,
    outcomes_by_answer,
    returns,
    tokens_at_turns,
    tokens_by_answer,
)
from backtrack_mrt.evaluation.metrics.values import normalised_regret
from backtrack_mrt.types import (
    Problem,
    Scored,
    StopReason,
)


def test_regret_of_hand_drawn_curves() -> None:
    assert normalised_regret([0, 10], [1, 1], 10) == pytest.approx(0)
    assert normalised_regret([0, 10], [0, 1], 10) == pytest.approx(0.5)
    # Held at 1 from token 10 to the budget 20: area 5 + 10.
    assert normalised_regret([0, 10], [0, 1], 20) == pytest.approx(1 - 15 / 20)
    # Cut in the middle of a segment: V(5) = .5, area 1.25.
    assert normalised_regret([0, 10], [0, 1], 5) == pytest.approx(1 - 1.25 / 5)
    assert normalised_regret([0], [0.25], 8) == pytest.approx(0.75)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.5, 100))
def test_regret_is_between_the_best_and_the_worst_value(values: list[float], budget: float) -> None:
    regret = normalised_regret(list(range(len(values))), values, budget)
    assert 1 - max(values) - 1e-9 <= regret <= 1 - min(values) + 1e-9


def test_answers_and_outcomes_at_every_limit() -> None:
    assert answers(CORRECTED) == [(0, "1"), (3, "2")]
    outcomes = outcomes_by_answer(CORRECTED, most=4)
    np.testing.assert_array_equal(outcomes, [0, 1, 1, 1])
    np.testing.assert_array_equal(tokens_at_turns(CORRECTED), [0, 10, 14, 16, 22, 25])
    np.testing.assert_array_equal(tokens_by_answer(CORRECTED, most=3), [10, 22, 25])


def test_a_violation_counts_from_the_limit_that_allows_it() -> None:
    broken = replace(
        CORRECTED,
        turns=(replace(ATTEMPT, reward=1.0), turn(BacktrackPhase.DETECT, 4, None, "missing_verdict")),
        stop=StopReason.VIOLATION,
        answer=None,
        outcome=0.0,
    )
    np.testing.assert_array_equal(outcomes_by_answer(broken, most=3), [1, 0, 0])


@pytest.mark.parametrize(("first_wrong", "kind"), [(2, "exact"), (3, "early"), (1, "late"), (4, "needless")])
def test_kinds_of_backtracks(first_wrong: int, kind: str) -> None:
    seen = []

    def first_wrong_step(problem: Problem, steps: object) -> int:
        seen.append(steps)
        return first_wrong

    assert returns(CORRECTED, first_wrong_step) == [kind]
    assert seen == [("a", "b", "c")]
    assert returns(CORRECTED, lambda problem, steps: None) == []


def test_calculations_left_undone_are_counted_paid_or_not() -> None:
    sum_of_two = replace(CORRECTED, problem=replace(CORRECTED.problem, answer="2"), answer="1+1")
    others = [replace(sum_of_two, answer="2"), replace(sum_of_two, answer="1+2", verdict="wrong")]
    paid, refused = replace(sum_of_two, verdict="right"), replace(sum_of_two, verdict="unevaluated")
    metrics = rollout_metrics([Scored(trajectory) for trajectory in (paid, refused, *others)])
    assert metrics["grader/unevaluated"] == 0.5


def test_rollout_metrics_by_hand() -> None:
    values = np.array([0.1, 0.2, 0.2, 0.4, 0.8, 0.9])
    wrong = replace(CORRECTED, turns=(ATTEMPT,), stop=StopReason.TURN_LIMIT, outcome=0.0, verdict="wrong")
    metrics = rollout_metrics([Scored(CORRECTED, values), Scored(wrong, np.array([0.1, 0.0]))])
    assert metrics["outcome"] == 0.5
    assert metrics["tokens/sampled"] == (25 + 10) / 2
    assert metrics["tokens/env"] == (2 + 5 * 2 + 2 + 2) / 2
    assert metrics["stop/finished"] == metrics["stop/turn_limit"] == 0.5
    assert metrics["grader/right"] == 0.5
    assert metrics["grader/unevaluated"] == 0
    assert metrics["value/turn_0"] == pytest.approx(0.1)
    assert metrics["progress/turn_0"] == pytest.approx((0.1 - 0.1) / 2)
    assert metrics["progress/turn_4"] == pytest.approx(0.1)
    phases = [name.removeprefix("progress/phase_") for name in metrics if name.startswith("progress/phase_")]
    assert phases == list(dict.fromkeys(str(turn.spec.phase) for turn in CORRECTED.turns))
    assert metrics[f"progress/phase_{phases[0]}"] == pytest.approx((0.1 - 0.1) / 2)
    together = sum(metrics[f"progress/phase_{turn.spec.phase}"] for turn in CORRECTED.turns[1:])
    assert together == pytest.approx(0.9 - 0.2)


def test_bootstrap_resamples_problems_not_samples() -> None:
    """100 copies of one sample per problem say no more than one."""
    few = bootstrap([[0.0], [1.0], [1.0], [0.0], [1.0]])
    many = bootstrap([[0.0] * 100, [1.0] * 100, [1.0] * 100, [0.0] * 100, [1.0] * 100])
    assert (few.low, few.high, few.mean) == (many.low, many.high, many.mean)
    assert (few.n, many.n) == (5, 500)
    assert bootstrap([[], []]).n == 0


def test_bootstrap_intervals_cover() -> None:
    """500 simulated data sets of 200 problems with 4 samples each, whose chances differ between problems (mean .3, so
    that samples of a problem are correlated): 95 % of the intervals should hold the truth."""
    rng = np.random.default_rng(0)
    chances = rng.beta(0.6, 1.4, size=(200, 500))
    estimates = ratio_estimates(rng.binomial(4, chances), np.full(chances.shape, 4))
    assert 0.93 <= np.mean([e.low <= 0.3 <= e.high for e in estimates]) <= 0.98


def test_too_few_problems_have_no_interval() -> None:
    few = bootstrap([[0.0, 1.0]] * 4 + [[]] * 10)
    assert (few.mean, few.n) == (0.5, 8)
    assert np.isnan(few.low)
    assert np.isnan(few.high)
    assert str(few) == "0.500 (too few problems for an interval)"


def test_means_are_over_samples_then_problems() -> None:
    """The first problem has two trajectories, the second one; one number is missing."""
    other = replace(CORRECTED, problem=Problem("other", "q", "2"))
    index = ProblemIndex([Scored(CORRECTED), Scored(other), Scored(CORRECTED)])
    means = index.means([[0.0, np.nan], [1.0, 5.0], [1.0, np.nan]])
    assert [(e.mean, e.n) for e in means] == [(0.75, 3), (5.0, 1)]
    (ratio,) = index.ratios([[0.0], [1.0], [1.0]], [[1.0], [1.0], [2.0]])
    assert (ratio.mean, ratio.n) == (0.5, 4)


def test_per_problem_keeps_numbers_together() -> None:
    other = replace(CORRECTED, problem=Problem("other", "q", "2"))
    rows = per_problem([CORRECTED, other, CORRECTED], [1.0, 2.0, 3.0])
    assert rows == [[1.0, 3.0], [2.0]]
