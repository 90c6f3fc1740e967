"""The critic of states between turns: what it learns, whom it has not seen, and that a resumed one is the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.hand_worked import ATTEMPT, ERROR_2, NO_ERROR, REVISE, TO_1

from backtrack_mrt.training.critic import Critic, explained_variance
from backtrack_mrt.types import FloatArray, Group, Problem, Scored, Trajectory

RNG = np.random.default_rng(0)
WRONG = (ATTEMPT, ERROR_2, TO_1, REVISE, NO_ERROR)


def batch(problems: int, worth: float = 0.8, canary: bool = False) -> list[Group]:
    """Groups of four. The first half of the members stops early and is right where V says so; the others go on and end
    right in a share `worth` of cases, whatever V says."""
    groups = []
    for k in range(problems):
        problem = Problem(f"{worth}-{k}", "q", "2", canary=canary)
        members = []
        for g in range(4):
            turns = (ATTEMPT, NO_ERROR) if g < 2 else WRONG
            values = RNG.uniform(0.02, 0.98, len(turns) + 1)
            outcome = float(RNG.uniform() < (values[1] if g < 2 else worth))
            members.append(Scored(Trajectory(problem, (0,), turns, outcome=outcome), values))
        groups.append(Group(problem, tuple(members)))
    return groups


def mean_baseline(critic: Critic, groups: list[Group], member: int, turn: int) -> float:
    return float(np.mean([critic.baselines(group)[member][turn] for group in groups]))


def test_it_learns_what_states_are_worth() -> None:
    critic = Critic().fitted(batch(300))
    asked = batch(200)
    assert mean_baseline(critic, asked, member=2, turn=3) == pytest.approx(0.8, abs=0.05)  # after going back
    for group in asked[:20]:
        b, values = critic.baselines(group)[0], group.members[0].values
        assert values is not None
        assert b.shape == (2,)
        expected = 0.5 * values[1] + 0.5 * 0.8  # half of those who attempted stop there, and V tells how they fare
        assert b[1] == pytest.approx(expected, abs=0.15)


def test_it_follows_a_policy_that_changes() -> None:
    critic = Critic().fitted(batch(100, worth=0.2))
    for _ in range(4):
        critic = critic.fitted(batch(100, worth=0.9))
    assert mean_baseline(critic, batch(100, worth=0.9), member=2, turn=3) == pytest.approx(0.9, abs=0.1)
    assert critic.batches == 5


def test_a_baseline_has_not_seen_its_own_outcome() -> None:
    """The critic before a batch says the same whatever the member's outcome is; the others' outcomes count."""
    critic = Critic().fitted(batch(50))
    (group,) = batch(1)

    def flipped(member: int) -> Group:
        members = list(group.members)
        old = members[member].trajectory
        members[member] = replace(members[member], trajectory=replace(old, outcome=1 - old.outcome))
        return replace(group, members=tuple(members))

    for asked in (critic, Critic()):
        before, own, other = (asked.baselines(g)[0] for g in (group, flipped(0), flipped(1)))
        np.testing.assert_array_equal(before, own)
        assert (before != other).all()


def test_without_a_group_it_starts_at_one_half() -> None:
    (group,) = batch(1)
    alone = replace(group, members=group.members[:1])
    np.testing.assert_array_equal(Critic().baselines(alone)[0], [0.5, 0.5])
    assert 0 < Critic().fitted([alone] * 20).baselines(alone)[0][0] < 1


def test_it_survives_a_checkpoint_bit_for_bit() -> None:
    first, second = batch(30), batch(30)
    critic = Critic().fitted(first)
    resumed = Critic.from_json(json.loads(json.dumps(critic.as_json())))

    def told(c: Critic) -> list[FloatArray]:
        return [b for group in second for b in c.fitted(second).baselines(group)]

    for ours, theirs in zip(told(critic), told(resumed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_it_explains_of_the_outcomes() -> None:
    honest, canaries = batch(40), batch(40, canary=True)
    told = {group.problem.id: [m.trajectory.outcome for m in group.members] for group in honest}

    def judged(groups: list[Group], knows: bool) -> list[Group]:
        means = [np.mean([row[g] for row in told.values()]) for g in range(4)]
        found = []
        for group in groups:
            says = told[group.problem.id] if knows else means
            members = [
                replace(m, baselines=np.full(len(m.trajectory.turns), b))
                for m, b in zip(group.members, says, strict=True)
            ]
            found.append(replace(group, members=tuple(members)))
        return found

    assert explained_variance(judged(honest, knows=True)) == 1
    assert 0 < explained_variance(judged(honest, knows=False)) < 0.5
    golds_are_wrong = judged(canaries, knows=False)
    assert explained_variance([*judged(honest, knows=True), *golds_are_wrong]) == 1
    assert np.isnan(explained_variance(judged(canaries, knows=True)))
    assert np.isnan(explained_variance(honest)), "no baselines"


def test_canaries_teach_it_nothing() -> None:
    critic = Critic()
    assert critic.fitted(batch(5, canary=True)) is critic
    with pytest.raises(ValueError, match="values"):
        Critic().fitted([replace(g, members=tuple(replace(m, values=None) for m in g.members)) for g in batch(1)])


def test_it_outlives_a_batch_with_values_that_are_not_finite() -> None:
    """Such a batch is skipped; a fit that took it in would spoil all later ones."""
    whole, broken = batch(20), batch(1)
    spoilt = [replace(g, members=tuple(replace(m, values=m.values * np.nan) for m in g.members)) for g in broken]
    critic = Critic().fitted([*whole, *spoilt])
    np.testing.assert_array_equal(critic.weights, Critic().fitted(whole).weights)
