"""Credits of the whole value curve (BRPO) and of information gain (IGPO): by hand, and what holds for all groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_groups import group, member, weights

from backtrack_mrt.algos.base import Algorithm, outcome_advantages
from backtrack_mrt.algos.brpo import Brpo
from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.algos.igpo import Igpo
from backtrack_mrt.types import Scored

members = st.tuples(st.booleans(), st.lists(st.floats(0, 1), min_size=2, max_size=7)).map(
    lambda m: member(*[False] * (len(m[1]) - 2), m[0], values=m[1])
)
groups = st.lists(members, min_size=2, max_size=6)


def test_brpo_by_hand() -> None:
    """Two turns and one: S = 2, p = ½ each. Scores: (.4, 1) and (0, 0), held after the end."""
    two, one = member(False, True, values=[0.2, 0.4, 0.9]), member(False, values=[0.2, 0.1])
    first = 0.5 * (0.4 + 1) - (0.7 + 0) / 2
    second = 0.5 - (0.5 * 0.4 * 0.5 + 0.5 * (0.5 + 0) / 2)
    found = weights(Brpo(), two, one)
    assert found[0] == pytest.approx([first, second])
    assert found[1] == pytest.approx([0 - 0.35])


def test_brpo_weighs_what_came_before_by_recency() -> None:
    """Three turns, a group of one: V2 is the trajectory's own return; before the last turn V1 = (.2 + 2·.8)/3."""
    (found,) = weights(Brpo(), member(False, False, True, values=[0, 0.2, 0.8, 1]))
    assert found[0] == pytest.approx(0)
    assert found[2] == pytest.approx(1 / 3 * (1 - 2 / 3 * (0.2 + 2 * 0.8) / 3 - 1 / 3))
    (alike,) = weights(Brpo(recency=1), member(False, False, True, values=[0, 0.2, 0.8, 1]))
    assert alike[2] == pytest.approx(1 / 3 * (1 - 2 / 3 * 0.5 - 1 / 3))


def test_brpo_with_a_linear_prior_counts_late_values_more() -> None:
    (found,) = weights(Brpo(prior="linear"), member(False, True, values=[0, 0.4, 1]))
    assert found[1] == pytest.approx(2 / 3 * (1 - 0.5 * 0.4 - 0.5))


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.sampled_from(["uniform", "linear"]))
def test_brpo_of_single_turns_is_grpo(rights: list[bool], prior: str) -> None:
    found = Brpo(prior=prior).turn_weights(group(*(member(r, values=[0.3, 0.8]) for r in rights)))  # type: ignore[arg-type]
    plain = Grpo().turn_weights(group(*(member(r) for r in rights)))
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(groups, st.floats(0, 1))
def test_brpo_first_turns_are_centred(rows: list[Scored], value: float) -> None:
    """Before the first turn nothing came: the baseline is the group's, and V_0 plays no part."""
    first = [row[0] for row in Brpo().turn_weights(group(*rows))]
    assert sum(first) == pytest.approx(0, abs=1e-9)
    other = [Scored(m.trajectory, np.append(value, m.values[1:])) for m in rows if m.values is not None]
    np.testing.assert_array_equal([row[0] for row in Brpo().turn_weights(group(*other))], first)


@given(groups)
def test_brpo_of_a_flat_curve_is_nothing_new(rows: list[Scored]) -> None:
    """All scores 1: every return is what is still to come, and so are both baselines."""
    flat = [member(*[True] * len(m.trajectory.turns), values=[1.0] * (len(m.trajectory.turns) + 1)) for m in rows]
    for row in Brpo().turn_weights(group(*flat)):
        np.testing.assert_allclose(row, 0, atol=1e-12)


def test_brpo_prefers_to_be_right_early() -> None:
    early, late = member(True, True, values=[0.1, 0.9, 0.9]), member(False, True, values=[0.1, 0.1, 0.9])
    found = weights(Brpo(), early, late)
    assert found[0][0] > 0 > found[1][0]
    assert weights(Grpo(), early, late) == [[0, 0], [0, 0]]


def test_igpo_by_hand() -> None:
    """Rewards (.3, 1) and (0): mean 1.3/3."""
    two, one = member(False, True, values=[0.2, 0.5, 0.9]), member(False, values=[0.2, 0.1])
    rewards = np.array([0.3, 1.0, 0.0])
    z = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    found = weights(Igpo(), two, one)
    assert found[0] == pytest.approx([z[0] + z[1], z[1]])
    assert found[1] == pytest.approx([z[2]])
    assert weights(Igpo(discount=0.5), two, one)[0] == pytest.approx([z[0] + 0.5 * z[1], z[1]])


@given(st.lists(st.booleans(), min_size=2, max_size=6))
def test_igpo_of_single_turns_is_grpo_up_to_scale(rights: list[bool]) -> None:
    outcomes = np.array(rights, float)
    found = np.concatenate(Igpo().turn_weights(group(*(member(r, values=[0.3, 0.8]) for r in rights))))
    np.testing.assert_allclose(found * (outcomes.std() + 1e-4), outcome_advantages(outcomes), atol=1e-9)


@pytest.mark.parametrize("algorithm", [Brpo(), Igpo()])
def test_members_without_turns_have_no_weights(algorithm: Algorithm) -> None:
    empty = member(True, values=[0.5, 0.5])
    nothing = Scored(empty.trajectory.branch(0), np.array([0.5]))
    assert [row.shape for row in algorithm.turn_weights(group(nothing, empty))] == [(0,), (1,)]
    assert [row.shape for row in algorithm.turn_weights(group(nothing))] == [(0,)]
