"""Weights of every algorithm on hand-worked groups."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.small_groups import group, member, weights

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm, SelfTraining
from backtrack_mrt.algos.collecting import BestOfN, Independent, Rationalized, TerminateOrContinue
from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.algos.length_penalty import LengthPenalty
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.algos.rise import Rise
from backtrack_mrt.algos.star import Star
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.training.self_training import rows_to_fit, weighed
from backtrack_mrt.types import Phase, TurnSpec

ALGORITHMS = plugins.names("backtrack_mrt.algos")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_gives_finite_weights_of_the_right_shape(algo: str) -> None:
    algorithm = plugins.load("backtrack_mrt.algos", algo, Algorithm, "algo")()  # type: ignore[type-abstract]
    members = [member(False, True, values=[0, 0.5, 1]), member(False, values=[0, 0.2])]
    rows = algorithm.turn_weights(group(*members))
    assert [row.shape for row in rows] == [(2,), (1,)]
    assert all(np.isfinite(row).all() for row in rows)
    assert algorithm.summary
    assert algorithm.loss == "ce" or sum(np.abs(row).sum() for row in rows) > 0


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_groups_that_say_little_have_finite_weights(algo: str) -> None:
    """One member, members that are all alike, and those that ended before their first turn."""
    algorithm = plugins.load("backtrack_mrt.algos", algo, Algorithm, "algo")()  # type: ignore[type-abstract]
    one = member(True, values=[0.5, 1])
    ended = replace(one, trajectory=replace(one.trajectory, turns=(), outcome=0.0), values=np.array([0.5]))
    for members in ((one,), (one,) * 3, (ended,) * 2, (ended, one)):
        rows = algorithm.weigh_batch([group(*members)])
        assert [len(row) for row in rows] == [len(each.trajectory.turns) for each in members]
        assert all(np.isfinite(row).all() for row in rows)


NAN, LEARNT = [[0.5, math.nan], [1]], [torch.ones(2, requires_grad=True), torch.ones(1)]


@pytest.mark.parametrize("given", [[[0.5]], [[0.5, 1], [1], [0]], [0.5, 1], None, [["a", "b"], ["c"]], NAN, LEARNT])
def test_an_algorithm_of_ones_own_gives_a_weight_per_turn(given: Any) -> None:
    class Own(Algorithm):
        def turn_weights(self, group: Any) -> Any:
            return given

    with pytest.raises(UserError, match=r"algo = 'Own': its turn_weights gave .* for 2 members of \[2, 1\] turns"):
        Own().weigh_batch([group(member(False, True), member(False))])


def test_length_penalty() -> None:
    short, long, wrong = member(True, tokens=2), member(True, tokens=6), member(False, tokens=100)
    # Right lengths 2 and 6: mean 4, deviation 2, so z = ∓1 and the rewards are 1 − λ·σ(∓1).
    low, high = (1 - 0.4 / (1 + math.exp(-z)) for z in (-1, 1))
    mean = (low + high + 0) / 3
    expected = [[low - mean], [high - mean], [-mean]]
    for row, wanted in zip(weights(LengthPenalty(strength=0.4), short, long, wrong), expected, strict=True):
        assert row == pytest.approx(wanted)


def test_length_penalty_of_zero_strength_is_grpo() -> None:
    members = [member(True, tokens=2), member(False, True, tokens=5), member(False)]
    assert weights(LengthPenalty(strength=0.0), *members) == weights(Grpo(), *members)


@pytest.mark.parametrize("outcomes", [(True, True), (False, False), (True, False)])
def test_length_penalty_without_a_spread_of_lengths_is_fair(outcomes: tuple[bool, ...]) -> None:
    members = [member(right, tokens=3) for right in outcomes]
    expected = [[0.9 * w for w in row] for row in weights(Grpo(), *members)]
    for row, wanted in zip(weights(LengthPenalty(strength=0.2), *members), expected, strict=True):
        assert row == pytest.approx(wanted)


def test_star_fits_right_trajectories_only() -> None:
    assert weights(Star(), member(False, True), member(True), member(False)) == [[1, 1], [1], [0]]
    assert Star().collection == Independent()
    assert Star(rationalize=True).collection == Rationalized()


HEAVY, LIGHT = math.exp(1 / 0.4), 1.0


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("all", [[LIGHT], [HEAVY], [0, HEAVY], [0, LIGHT], [0, HEAVY]]),
        ("better", [[0], [HEAVY], [0, HEAVY], [0, 0], [0, 0]]),
        ("best", [[0], [HEAVY], [0, HEAVY], [0, 0], [0, HEAVY]]),
        ("success", [[0], [HEAVY], [0, HEAVY], [0, 0], [0, HEAVY]]),
    ],
)
def test_rise_criteria(criterion: str, expected: list[list[float]]) -> None:
    """A wrong and a right attempt; revisions wrong → right, wrong → wrong, right → right. Given turns weigh nothing."""
    members = [
        member(False),
        member(True),
        member(False, True, given=1),
        member(False, False, given=1),
        member(True, True, given=1),
    ]
    for row, wanted in zip(weights(Rise(criterion=criterion), *members), expected, strict=True):  # type: ignore[arg-type]
        assert row == pytest.approx(wanted)


def test_rise_with_nothing_right() -> None:
    members = [member(False), member(False, False, given=1)]
    assert weights(Rise(criterion="best"), *members) == [[LIGHT], [0, LIGHT]]
    assert weights(Rise(criterion="success"), *members) == [[0], [0, 0]]


def test_rise_counts_duplicates_once_and_can_be_centred() -> None:
    members = [member(True), member(True), member(False)]
    assert weights(Rise(criterion="success"), *members) == [[HEAVY], [0], [0]]
    centred = weights(Rise(criterion="all", centred=True), *members)
    assert centred == [[pytest.approx(math.exp(0.5 / 0.4))], [0], [pytest.approx(math.exp(-0.5 / 0.4))]]


def test_prefix_credit_is_the_groups_outcome() -> None:
    members = [member(True, given=0, values=[0, 1]), member(False, False, values=[0, 1, 0])]
    assert weights(MrtRl(credit="prefix", alpha=7), *members) == [[0.5], [-0.5, -0.5]]
    assert MrtRl(credit="prefix").collection == TerminateOrContinue()


def test_going_on_may_be_paid_what_it_gains_over_answers_now() -> None:
    """A = R − mean R of the half that terminates, an estimate of the prefix's value."""
    now = TurnSpec(Phase.FORCE, 8)
    members = [member(right) for right in (True, False, False, False, True, True, True, False)]
    for k, one in enumerate(members[:4]):
        last = replace(one.trajectory.turns[-1], spec=now)
        members[k] = replace(one, trajectory=replace(one.trajectory, turns=(*one.trajectory.turns[:-1], last)))
    credit = MrtRl(credit="prefix", prefix_baseline="terminated")
    assert weights(credit, *members) == [[0.75], *[[-0.25]] * 3, *[[0.75]] * 3, [-0.25]]
    assert sum(row[0] for row in weights(MrtRl(credit="prefix"), *members)) == 0
    assert weights(credit, *members[4:]) == weights(MrtRl(credit="prefix"), *members[4:])  # no room to answer


def test_ways_of_collecting() -> None:
    assert MrtRl().collection == Independent()
    assert Rise(candidates=3).collection == BestOfN(3)


def test_self_training_divides_by_the_mean_weight_and_drops_the_rest() -> None:
    rows = rows_to_fit(weighed([member(True), member(True, start=20), member(False, start=40)], Rise(criterion="all")))
    mean = (HEAVY + HEAVY + LIGHT) / 3
    tops = [max(row["weights"]) for row in rows]
    assert tops == [pytest.approx(HEAVY / mean)] * 2 + [pytest.approx(LIGHT / mean)]
    assert all(row["weights"][0] == 0 for row in rows)  # the prompt
    assert len(rows_to_fit(weighed([member(True), member(False)], Star()))) == 1


def test_self_training_algorithms_are_told_apart() -> None:
    kinds = {name: plugins.load("backtrack_mrt.algos", name, Algorithm, "algo") for name in ALGORITHMS}  # type: ignore[type-abstract]
    assert {name for name, kind in kinds.items() if issubclass(kind, SelfTraining)} == {
        "star",
        "star-shortest",
        "rise",
        "mrt-star",
    }


@pytest.mark.parametrize(
    ("flags", "field", "reason"),
    [
        (["--algo", "rise", "--env", "single"], "algo", "gives none"),
        (["--algo", "rise", "--protocol.max_revisions", "0"], "algo", "gives none"),
        (["--algo", "mrt-rl", "--prover.estimator", "none"], "prover.estimator", "needs the values"),
        (["--algo", "mrt-star", "--prover.estimator", "none"], "prover.estimator", "needs the values"),
        (
            ["--algorithm.credit", "prefix", "--training.group_size", "5", "--training.micro_batch_size", "8"],
            "algo",
            "even group",
        ),
    ],
)
def test_what_cannot_run_together_is_refused(flags: list[str], field: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        read_request(flags)
    assert error.value.field in (field, f"--{field} (command line)")
