"""The retry protocol by example, and what holds for every protocol that can be lengthened."""

from __future__ import annotations

import re

import pytest
from support.turn_strategies import PROBLEM, after, attempt

import backtrack_mrt.envs.retry
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.open_ended import OpenEnded
from backtrack_mrt.envs.retry import Retry
from backtrack_mrt.grading.verdict import grade_of
from backtrack_mrt.rollouts.episode import Episode, graded
from backtrack_mrt.types import StopReason, Trajectory

REVISION = ["Error in step 1", "Backtrack to step 0", attempt(1)]


def episode(*texts: str, **settings: int) -> Episode:
    return after(Episode(Retry(**settings), Trajectory(PROBLEM, ())), *texts)


def test_the_order_of_the_phases():
    run = episode("\\boxed{1}", "\\boxed{2}", "\\boxed{3}", max_retries=2)
    assert [turn.spec.phase for turn in run.turns] == ["attempt", "retry", "retry"]
    assert run.stop is StopReason.FINISHED
    assert len(run.turns) == run.protocol.max_turns == run.protocol.max_answers == 3
    assert episode("\\boxed{1}", max_retries=0).stop is StopReason.FINISHED


def test_the_latest_answer_stands():
    run = episode("\\boxed{2}")
    assert run.trajectory().answer == "2"
    assert after(run, "\\boxed{3}").trajectory().answer == "3"
    trajectory = graded(run.trajectory(), lambda answer: grade_of(float(answer == "2")))
    assert [turn.right for turn in trajectory.turns] == [True, False]
    assert trajectory.outcome == 0.0, "what counts is the answer that stands"


def test_a_turn_without_a_box_breaks_the_protocol():
    run = episode("\\boxed{2}", "as I said")
    assert (run.stop, run.turns[-1].violation, run.trajectory().answer) == (
        StopReason.VIOLATION, "missing_answer", None,
    )  # fmt: skip
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", backtrack_mrt.envs.retry.__doc__))
    assert documented == {"missing_answer", "turn_too_long", "not_text"}


@pytest.mark.parametrize("protocol", [Retry(max_retries=4, token_budget=100), Backtrack(max_revisions=4)])
def test_with_answers_stops_after_so_many(protocol):
    for answers in (1, 2, 3):
        fewer = protocol.with_answers(answers)
        assert fewer.max_answers == answers
        assert fewer.token_budget == protocol.token_budget
        run = Episode(fewer, Trajectory(PROBLEM, ()))
        while run.stop is None:
            after(run, *([attempt(1)] if not run.turns or isinstance(protocol, Retry) else REVISION))
        assert sum(turn.parsed.answer is not None for turn in run.turns) == answers
        assert len(run.turns) <= fewer.max_turns


def test_prolonged_protocols_have_more_room():
    assert Retry(max_retries=3, token_budget=100).prolonged(2) == Retry(max_retries=6, token_budget=200)
    assert Retry(max_retries=3, token_budget=100).prolonged(1) == Retry(max_retries=3, token_budget=100)
    assert OpenEnded(token_budget=100).prolonged(2) == OpenEnded(token_budget=200)
