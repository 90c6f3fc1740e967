"""Results per problem set, their average, and votes: of samples, of one trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.hand_worked import ATTEMPT, CORRECTED, ERROR_2, REVISE, TO_1

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.evaluation.evaluate import sampled_rows
from backtrack_mrt.evaluation.metrics.budgets import voting_efficiency
from backtrack_mrt.evaluation.metrics.problem_sets import AVERAGE, by_set, set_of
from backtrack_mrt.evaluation.metrics.summary import linearised_points
from backtrack_mrt.evaluation.metrics.voting import votes_by_answer
from backtrack_mrt.types import Problem, Scored, StopReason, Trajectory

VALUES = np.array([0.1, 0.2, 0.2, 0.4, 0.8, 0.9, 0.9, 0.9])
WRONG = replace(CORRECTED, turns=(ATTEMPT,), answer="1", outcome=0.0, verdict="wrong")


def of(name: str, trajectory: Trajectory) -> Scored:
    values = VALUES[: len(trajectory.turns) + 1]
    return Scored(replace(trajectory, problem=Problem(name, "q", "2")), values, frozen_values=values / 2)


def test_each_set_counts_the_same() -> None:
    large = [of(f"math500/{i}", CORRECTED if i % 4 else WRONG) for i in range(40)]
    small = [of(f"aime24/{i}", CORRECTED if i < 1 else WRONG) for i in range(5) for _ in range(2)]
    found = by_set([*large, *small], 2, 3, 25)
    assert list(found) == ["aime24", "math500", AVERAGE]
    aime, math, average = found.values()
    assert (aime.problems, aime.samples, math.problems, math.samples) == (5, 2, 40, 1)
    assert (aime.accuracy.mean, math.accuracy.mean) == (0.2, 0.75)
    assert average.accuracy.mean == pytest.approx((0.2 + 0.75) / 2)
    assert aime.accuracy.low < average.accuracy.low < average.accuracy.high < math.accuracy.high
    assert aime.accuracy.n == 10
    assert len(aime.maj_at_k) == 2
    assert len(average.maj_at_k) == 1
    assert math.normalised_regret_frozen.mean > math.normalised_regret.mean
    assert average.first_attempt.mean == 0


def test_one_set_has_no_table() -> None:
    assert by_set([of(f"signs/test/{i}", CORRECTED) for i in range(6)], 2, 3, 25) == {}
    assert set_of(Problem("7", "q", "2", "mine")) == "mine"


def test_a_set_without_values_has_no_regret() -> None:
    scored = [Scored(replace(CORRECTED, problem=Problem(f"{name}/{i}", "q", "2"))) for name in "ab" for i in range(6)]
    found = by_set(scored, 2, 3, 25)
    assert found["a"].normalised_regret.n == found[AVERAGE].normalised_regret.n == 0
    assert found[AVERAGE].accuracy.mean == 1


def test_small_sets_are_sampled_more_often() -> None:
    problems = [Problem(f"aime24/{i}", "q", "2") for i in range(3)] + [Problem(f"math/{i}", "q", "2") for i in range(5)]
    flags = ["--evaluation.samples", "2", "--evaluation.small_set", "5", "--evaluation.small_set_samples", "16"]
    rows = sampled_rows(problems, read_request(flags).config.evaluation)
    assert len(rows) == 3 * 16 + 5 * 2
    assert [row.id for row in sampled_rows(problems, read_request([]).config.evaluation)] == [p.id for p in problems]


def test_a_trace_votes_over_its_answers() -> None:
    """One wrong and one right answer are a tie; a second right one decides. The last answer is another measure."""
    assert votes_by_answer(CORRECTED, 3).tolist() == [0, 0.5, 0.5]
    again = replace(
        CORRECTED, turns=(ATTEMPT, ERROR_2, TO_1, REVISE, ERROR_2, TO_1, REVISE), stop=StopReason.TURN_LIMIT
    )
    assert votes_by_answer(again, 4).tolist() == [0, 0.5, 1, 1]
    assert votes_by_answer(replace(CORRECTED, turns=(ERROR_2,)), 2).tolist() == [0, 0]
    points = linearised_points([of("a/1", again)], 3)
    assert [p.majority.mean for p in points] == [0, 0.5, 1]
    assert [p.accuracy.mean for p in points] == [0, 1, 1]


def test_efficiency_by_votes() -> None:
    """Who is right with each of two samples needs one; who is right with every second one needs both, at 25 + 10 tokens
    against 10 each."""
    short = replace(CORRECTED, turns=(replace(ATTEMPT, reward=1.0),), answer="2")
    ours = [of(f"p/{i}", short) for i in range(6) for _ in range(2)]
    silent = replace(CORRECTED, answer=None, outcome=0.0, turns=(*CORRECTED.turns[:3],))
    theirs = [of(f"p/{i}", t) for i in range(6) for t in (short, silent)]
    found = voting_efficiency(ours, theirs, 2, shares=[1.0])
    spent = (10 + 16) / 2
    assert found["1.000"].mean == pytest.approx(2 * spent / 10)
    assert found["1.000"].low == found["1.000"].high == pytest.approx(2 * spent / 10)
    assert voting_efficiency([of("p/1", WRONG)] * 2, theirs[:2], 2) == {}
