"""MRT's self-training on hand-worked groups, its control, and what pulls alike in the loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_groups import group, member, weights

from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.algos.mrt_star import MrtStar
from backtrack_mrt.algos.rise import Rise
from backtrack_mrt.algos.sft import Sft
from backtrack_mrt.algos.star import Star
from backtrack_mrt.algos.star_shortest import StarShortest
from backtrack_mrt.training.self_training import weighed
from backtrack_mrt.types import Scored, Trajectory

STRAIGHT = member(False, True, values=[0.3, 0.6, 0.9])
REPAIRED = member(False, False, True, values=[0.3, 0.1, 0.4, 0.9])  # its first turn lowers the value
WANDERING = member(True, False, False, True, values=[0.3, 0.9, 0.2, 0.1, 0.9])
WRONG = member(True, False, values=[0.3, 1.0, 0.1])


def test_turns_that_lower_the_value_are_not_fitted() -> None:
    assert weights(MrtStar(), REPAIRED) == [[0, 1, 1]]
    assert weights(MrtStar(), WANDERING) == [[1, 0, 0, 1]]
    assert weights(MrtStar(tolerance=0.25), REPAIRED) == [[1, 1, 1]], "small falls are noise"


def test_the_trajectories_that_wandered_least_are_kept() -> None:
    members = (WANDERING, REPAIRED, WRONG, STRAIGHT)
    assert weights(MrtStar(keep=1), *members) == [[0] * 4, [0] * 3, [0] * 2, [1, 1]]
    assert weights(MrtStar(keep=2), *members) == [[0] * 4, [0, 1, 1], [0] * 2, [1, 1]]
    assert weights(MrtStar(keep=9), *members) == [[1, 0, 0, 1], [0, 1, 1], [0] * 2, [1, 1]]


def test_a_trajectory_is_fitted_up_to_where_thinking_on_gains_nothing() -> None:
    spoiling = member(False, True, True, values=[0.3, 0.4, 0.95, 0.7])
    assert weights(MrtStar(), spoiling) == [[1, 1, 0]]
    checking = member(False, True, True, values=[0.3, 0.4, 0.95, 0.94])
    assert weights(MrtStar(), checking) == [[1, 1, 1]], "its end belongs to it: the value is as high"
    hopeless = member(True, values=[0.3, 0.45])
    assert weights(MrtStar(), hopeless) == [[0]], "stopping there would rather be wrong"
    known = member(True, values=[0.9, 0.6])
    assert weights(MrtStar(), known) == [[0]], "nothing was gained by thinking"


def test_length_does_not_choose() -> None:
    """Mean progress per turn would take the shortest one, whatever its order."""
    long, short = member(False, False, False, True, values=[0.1, 0.3, 0.5, 0.7, 0.9]), member(True, values=[0.1, 0.9])
    assert weights(MrtStar(keep=1), long, short) == [[1, 1, 1, 1], [0]]
    assert weights(MrtStar(keep=1), short, long) == [[1], [0, 0, 0, 0]]
    assert weights(StarShortest(keep=1), long, short) == [[0, 0, 0, 0], [1]]


def test_the_control_keeps_the_shortest_right_trajectories() -> None:
    members = (member(True, tokens=9), member(False, tokens=1), member(False, True, tokens=4), member(True, tokens=9))
    assert weights(StarShortest(keep=1), *members) == [[0], [0], [1, 1], [0]]
    assert weights(StarShortest(keep=2), *members) == [[1], [0], [1, 1], [0]]
    assert not StarShortest.needs_values


values = st.lists(st.floats(0, 1), min_size=2, max_size=7)
rights = st.tuples(st.booleans(), values).map(lambda m: member(*[False] * (len(m[1]) - 2), m[0], values=m[1]))


@given(st.lists(rights, min_size=1, max_size=6), st.integers(1, 3))
def test_only_right_trajectories_that_rise_to_a_half_are_fitted(members: list[Scored], keep: int) -> None:
    rows = MrtStar(keep=keep).turn_weights(group(*members))
    assert sum(row.any() for row in rows) <= keep
    for row, one in zip(rows, members, strict=True):
        assert one.values is not None
        assert not (row.any() and (one.trajectory.outcome == 0 or one.values.max() < 0.5))
        assert (one.progress[row > 0] >= -0.05).all()


@pytest.mark.parametrize("algorithm", [Grpo, Star])
def test_the_unit_says_what_pulls_alike(algorithm: type[Algorithm]) -> None:
    groups = [group(member(True, tokens=2), member(False, True, tokens=3), member(False, tokens=10))]

    def pulls(unit: str) -> list[list[float]]:
        """Weight times tokens of every turn."""
        rows = algorithm(unit=unit).weigh_batch(groups)  # type: ignore[arg-type]
        tokens = [[len(t.completion.token_ids) for t in m.trajectory.turns] for m in groups[0].members]
        return [(row * lengths).tolist() for row, lengths in zip(rows, tokens, strict=True)]

    plain = algorithm().turn_weights(groups[0])
    assert pulls("token") == [(row * n).tolist() for row, n in zip(plain, (2, 3, 10), strict=True)]
    assert pulls("turn") == [pytest.approx((row * (2 + 3 + 3 + 10) / 4).tolist()) for row in plain]
    whole = [sum(row) for row in pulls("trajectory")]
    assert whole == pytest.approx([row[0] * (2 + 6 + 10) / 3 for row in plain])


def test_the_mean_is_that_of_the_batch_and_given_turns_do_not_count() -> None:
    groups = [group(member(True, True, tokens=4, given=1)), group(member(True, tokens=8))]
    rows = Star(unit="turn").weigh_batch(groups)
    assert [row[-1] for row in rows] == [6 / 4, 6 / 8]
    empty = Scored(Trajectory(groups[0].problem, (1,), outcome=0.0))
    assert [row.shape for row in Star(unit="turn").weigh_batch([group(empty)])] == [(0,)]
    assert Star(unit="turn").weigh_batch([]) == []


def test_self_training_weighs_a_member_by_its_own_tokens() -> None:
    """RISE's official form: every answer, each the mean over its tokens."""
    members = [member(True, tokens=2), member(False, True, tokens=6, given=1)]
    rows = weighed(members, Rise(criterion="all", unit="trajectory"))
    totals = [float(np.dot(s.weights, [2] if i == 0 else [0, 6])) for i, s in enumerate(rows) if s.weights is not None]
    assert totals[0] == pytest.approx(totals[1])


def test_demonstrations_are_fitted_token_by_token() -> None:
    assert Sft(unit="turn").objection(max_answers=1, group_size=1)
    assert Sft().objection(max_answers=1, group_size=1) is None
