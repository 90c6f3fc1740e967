"""Credit assignment: invariants of the algorithms, and the turn baseline on an MDP small enough to enumerate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtrack_mrt.algos.base import (
    generalised_advantages,
    outcome_advantages,
    progress_to_go,
    turn_progress,
)
from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.types import (
    Completion,
    Finish,
    FloatArray,
    Group,
    Parsed,
    Problem,
    Scored,
    Trajectory,
    Turn,
    TurnSpec,
)

PROBLEM = Problem("p", "question", "answer")
TURN = Turn(TurnSpec("attempt", 8), "", Parsed(), (), Completion((1,), (0.0,), Finish.STOP))


def scored(outcome: float, values: list[float]) -> Scored:
    turns = (TURN,) * (len(values) - 1)
    return Scored(Trajectory(PROBLEM, (0,), turns, outcome=outcome), np.array(values))


def group(*members: Scored) -> Group:
    return Group(PROBLEM, members)


members = st.builds(
    scored,
    st.sampled_from([0.0, 1.0]),
    st.lists(st.floats(0, 1), min_size=2, max_size=7),
)
groups = st.lists(members, min_size=2, max_size=6).map(lambda rows: group(*rows))


@given(groups, st.booleans(), st.sampled_from(["turn", "return_to_go"]))
def test_alpha_zero_is_grpo(scored_group: Group, scale: bool, credit: str) -> None:
    mrt = MrtRl(alpha=0.0, credit=credit, scale_outcome=scale).turn_weights(scored_group)
    grpo = Grpo(scale_outcome=scale).turn_weights(scored_group)
    for ours, theirs in zip(mrt, grpo, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(groups, st.floats(0.1, 4))
def test_progress_summed_over_a_trajectory_is_grpo_again(scored_group: Group, alpha: float) -> None:
    """With V_E = R and one V_0 per problem (an exact prover), trajectory-summed progress telescopes: group-centred,
    outcome + α·Σp is (1 + α) times GRPO's advantage."""
    exact = [
        scored(m.trajectory.outcome, [0.3, *np.asarray(m.values)[1:-1], m.trajectory.outcome])
        for m in scored_group.members
    ]
    outcomes = np.array([m.trajectory.outcome for m in exact])
    summed = outcomes + alpha * np.array([m.progress.sum() for m in exact])
    np.testing.assert_allclose(outcome_advantages(summed), (1 + alpha) * outcome_advantages(outcomes), atol=1e-12)


def test_progress_per_turn_is_not_grpo() -> None:
    """The same total progress in other turns gives other weights."""
    early, late = scored(1.0, [0.0, 1.0, 1.0]), scored(1.0, [0.0, 0.0, 1.0])
    first, second = MrtRl(alpha=1.0).turn_weights(group(early, late))
    np.testing.assert_array_equal(first, [1.0, 0.0])
    np.testing.assert_array_equal(second, [0.0, 1.0])


def test_weights_by_hand() -> None:
    rows = group(scored(1.0, [0.2, 0.5, 0.9]), scored(0.0, [0.2, 0.1]))
    turn = MrtRl(alpha=2.0, credit="turn").turn_weights(rows)
    np.testing.assert_allclose(turn[0], [0.5 + 2 * 0.3, 0.5 + 2 * 0.4])
    np.testing.assert_allclose(turn[1], [-0.5 - 2 * 0.1])
    to_go = MrtRl(alpha=2.0, credit="return_to_go").turn_weights(rows)
    np.testing.assert_allclose(to_go[0], [0.5 + 2 * 0.7, 0.5 + 2 * 0.4])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).map(np.array))
def test_progress_to_go_sums_the_progress(values: FloatArray) -> None:
    np.testing.assert_allclose(progress_to_go(values), np.cumsum(turn_progress(values)[::-1])[::-1], atol=1e-12)


# A two-turn MDP with policy-chosen stopping: in either turn the policy stops (action 0) or goes on (1, 2).
# Action k of turn j has logit θ[j, k]; the state after each action has a value of its own.
THETA = np.array([[0.3, -0.2, 0.5], [-0.4, 0.1, 0.6]])
V0, V_FIRST, V_SECOND = 0.2, (0.35, 0.1, 0.5), ((0.0, 0.9, 0.2), (0.6, 0.3, 1.0))


def policy(theta: FloatArray) -> FloatArray:
    exp = np.exp(theta)
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def trajectories() -> list[tuple[list[int], FloatArray]]:
    """All action sequences with their values V_0 … V_E."""
    rows = [([0], np.array([V0, V_FIRST[0]]))]
    for a, b in itertools.product((1, 2), (0, 1, 2)):
        rows.append(([a, b], np.array([V0, V_FIRST[a], V_SECOND[a - 1][b]])))
    return rows


def probability(theta: FloatArray, actions: list[int]) -> float:
    return math.prod(float(policy(theta)[j, a]) for j, a in enumerate(actions))


def grad_log(actions: list[int], weights: FloatArray) -> FloatArray:
    """Σ_j w_j ∇ log π(a_j), shape of θ."""
    gradient = np.zeros_like(THETA)
    for j, (a, w) in enumerate(zip(actions, weights, strict=True)):
        gradient[j] -= w * policy(THETA)[j]
        gradient[j, a] += w
    return gradient


def true_gradient() -> FloatArray:
    """∇ E[V_E − V_0] by central differences."""
    gradient, step = np.zeros_like(THETA), 1e-6
    for index in np.ndindex(*THETA.shape):
        for sign in (1, -1):
            theta = THETA.copy()
            theta[index] += sign * step
            total = sum(probability(theta, actions) * (values[-1] - V0) for actions, values in trajectories())
            gradient[index] += sign * total / (2 * step)
    return gradient


def expected_gradient(weights: Callable[[list[tuple[list[int], FloatArray]]], list[FloatArray]]) -> FloatArray:
    """Expectation over all groups of two of the group's mean gradient under a weighting."""
    gradient = np.zeros_like(THETA)
    for pair in itertools.product(trajectories(), repeat=2):
        p = math.prod(probability(THETA, actions) for actions, _ in pair)
        for (actions, _), w in zip(pair, weights(list(pair)), strict=True):
            gradient += p * grad_log(actions, w) / 2
    return gradient


def test_the_state_baseline_is_unbiased() -> None:
    gradient = expected_gradient(lambda pair: [progress_to_go(values) for _, values in pair])
    np.testing.assert_allclose(gradient, true_gradient(), atol=1e-8)


def exact_values(actions: list[int]) -> FloatArray:
    """The chance, before each turn of these actions, that the trajectory is worth what it will be: E[V_E | state]."""
    second = [float(policy(THETA)[1] @ V_SECOND[a - 1]) for a in (1, 2)]
    first = float(policy(THETA)[0] @ [V_FIRST[0], *second])
    return np.array([first, *(second[a - 1] for a in actions[:1] if len(actions) > 1)])


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_generalised_advantages_of_the_true_values_are_unbiased(decay: float) -> None:
    """At every λ, though the policy chooses when to stop."""
    gradient = expected_gradient(
        lambda pair: [generalised_advantages(values[-1], exact_values(actions), decay) for actions, values in pair]
    )
    np.testing.assert_allclose(gradient, true_gradient(), atol=1e-8)


def test_generalised_advantages_of_any_baseline_are_unbiased_at_lambda_one_only() -> None:
    def gradient(decay: float) -> FloatArray:
        return expected_gradient(
            lambda pair: [generalised_advantages(values[-1], values[:-1], decay) for _, values in pair]
        )

    np.testing.assert_allclose(gradient(1.0), true_gradient(), atol=1e-8)
    assert np.abs(gradient(0.5) - true_gradient()).max() > 1e-3


@given(groups, st.floats(0, 1))
def test_lambda_one_and_a_constant_baseline_is_reinforce(scored_group: Group, constant: float) -> None:
    rows = [replace(m, baselines=np.full(len(m.trajectory.turns), constant)) for m in scored_group.members]
    for row, weights in zip(rows, MrtRl(credit="gae", gae_lambda=1.0).turn_weights(group(*rows)), strict=True):
        np.testing.assert_allclose(weights, row.trajectory.outcome - constant, atol=1e-12)


@given(members)
def test_lambda_zero_with_values_is_progress_but_for_the_last_turn(member: Scored) -> None:
    """The last turn is credited with the outcome that came of it, not with an answer forced after it."""
    (weights,) = MrtRl(credit="gae", gae_lambda=0.0, baseline="value").turn_weights(group(member))
    assert member.values is not None
    np.testing.assert_allclose(weights[:-1], member.progress[:-1], atol=1e-12)
    assert weights[-1] == pytest.approx(member.trajectory.outcome - member.values[-2])


def old_prefix_gradient() -> FloatArray:
    """∇ Σ_j E[p_j], every prefix drawn by the policy before the update (MRT, eq. 2), by central differences."""
    gradient, step, old = np.zeros_like(THETA), 1e-6, policy(THETA)
    gains = [np.array(V_FIRST) - V0, *(np.array(V_SECOND[a - 1]) - V_FIRST[a] for a in (1, 2))]
    for index in np.ndindex(*THETA.shape):
        for sign in (1, -1):
            theta = THETA.copy()
            theta[index] += sign * step
            first, second = policy(theta)
            total = first @ gains[0] + old[0, 1] * (second @ gains[1]) + old[0, 2] * (second @ gains[2])
            gradient[index] += sign * total / (2 * step)
    return gradient


def test_own_progress_is_the_gradient_of_the_papers_objective() -> None:
    """Not of the outcome: what a turn makes possible later is not its own."""
    gradient = expected_gradient(lambda pair: [turn_progress(values) for _, values in pair])
    np.testing.assert_allclose(gradient, old_prefix_gradient(), atol=1e-8)
    assert np.abs(gradient - true_gradient()).max() > 1e-3


@given(groups, st.floats(0, 2))
def test_the_table_of_credits(scored_group: Group, alpha: float) -> None:
    """docs/method.md, "How the credits are related": each as GRPO's advantage and generalised advantages."""
    outcomes = np.array([m.trajectory.outcome for m in scored_group.members])
    grpo = Grpo().turn_weights(scored_group)
    mean = [replace(m, baselines=np.full(len(m.trajectory.turns), outcomes.mean())) for m in scored_group.members]
    for ours, theirs in zip(MrtRl(credit="gae", gae_lambda=1.0).turn_weights(group(*mean)), grpo, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    for credit, decay in (("turn", 0.0), ("return_to_go", 1.0)):
        weights = MrtRl(alpha=alpha, credit=credit).turn_weights(scored_group)
        for member, ours, theirs in zip(scored_group.members, weights, grpo, strict=True):
            assert member.values is not None
            bonus = generalised_advantages(float(member.values[-1]), member.values[:-1], decay)
            np.testing.assert_allclose(ours, theirs + alpha * bonus, atol=1e-12)


def test_means_per_turn_index_are_biased() -> None:
    """Who reaches turn j depends on who stopped: the mean over the survivors is no baseline. Not even the direction of
    the gradient is kept."""

    def centred_per_turn(pair: list[tuple[list[int], FloatArray]]) -> list[FloatArray]:
        raw = [values[-1] - V0 + np.zeros(len(actions)) for actions, values in pair]
        means = [np.mean([row[j] for row in raw if j < len(row)]) for j in range(2) if any(j < len(r) for r in raw)]
        return [np.array([row[j] - means[j] for j in range(len(row))]) for row in raw]

    biased, true = expected_gradient(centred_per_turn), true_gradient()
    cosine = float((biased * true).sum() / np.linalg.norm(biased) / np.linalg.norm(true))
    assert cosine < 0.99


@pytest.mark.parametrize("scale", [False, True])
def test_equal_outcomes_give_no_advantage(scale: bool) -> None:
    np.testing.assert_array_equal(outcome_advantages(np.ones(4), scale), np.zeros(4))
