"""Values of the answers that a trajectory states: whose they are, what they cost, where they are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import generate
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.rollouts.stated import stated_values
from backtrack_mrt.types import Completion, Finish, Problem, StopReason, Trajectory, Turn, TurnSpec

STATED = ("--algo", "mrt-rl", "--algorithm.values", "stated")
rewards_of_turns = st.lists(st.none() | st.floats(0, 1), max_size=8)


def trajectory(rewards: list[float | None], stop: StopReason | None = None) -> Trajectory:
    said = Completion((1,), (0.0,), Finish.STOP)
    turns = tuple(Turn(TurnSpec("attempt", 1), "", None, (), said, reward=reward) for reward in rewards)
    return Trajectory(Problem("p", "?", "1"), turns=turns, stop=stop)


@given(rewards_of_turns)
def test_the_last_answer_counts(rewards: list[float | None]) -> None:
    values = stated_values(trajectory(rewards))
    assert len(values) == len(rewards) + 1
    for j, value in enumerate(values):
        assert value == next((r for r in reversed(rewards[:j]) if r is not None), 0.0)


def test_nothing_stands_after_a_violation() -> None:
    assert stated_values(trajectory([1.0, None], StopReason.VIOLATION)).tolist() == [0.0, 1.0, 0.0]
    assert stated_values(trajectory([1.0, None], StopReason.FINISHED)).tolist() == [0.0, 1.0, 1.0]


def test_training_takes_them_for_no_token_and_evaluation_asks_the_prover() -> None:
    parts = assemble(read_request([*STATED, "--training.group_size", "2"]).config)
    problems = [problem for problem in generate("validation", 8, seed=7) for _ in range(2)]
    seeds = trajectory_seeds(0, 1, len(problems))
    collected = parts.training_collector().collect(problems, seeds, 1.0)
    assert collected.ledger.prover == 0
    for scored in collected.scored:
        assert scored.values is not None
        assert set(scored.values) <= {0.0, 1.0}
        assert scored.values[-1] == scored.trajectory.outcome
    assert len({len(scored.trajectory.turns) for scored in collected.scored}) > 1
    assert any(np.ptp(scored.values) > 0 for scored in collected.scored if scored.values is not None)

    evaluated = parts.evaluation_collector().collect(problems, seeds, 1.0)
    assert evaluated.ledger.prover > 0
    forced = replace(parts.training_collector(), prover=parts.prover()).collect(problems, seeds, 1.0)
    pairs = zip(collected.scored, forced.scored, strict=True)
    assert all(ours.trajectory.token_ids == theirs.trajectory.token_ids for ours, theirs in pairs)


@pytest.mark.parametrize("env", ["single", "open-ended"])
def test_they_need_answers_on_the_way(env: str) -> None:
    with pytest.raises(UserError, match=rf"env.* = '{env}': mrt-rl takes the grades .*Set algorithm\.values to prover"):
        read_request([*STATED, "--env", env, "--algorithm.credit", "gae"])


def test_they_need_no_prover() -> None:
    none = ("--prover.estimator", "none")
    assert read_request([*STATED, *none]).config.algorithm.asks_prover is False
    with pytest.raises(UserError, match=r"prover\.estimator.*needs the values of a meta-prover"):
        read_request(["--algo", "mrt-rl", *none])
