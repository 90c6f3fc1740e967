"""The backtracking protocol by example: order, grammar, targets, limits, and every violation by its name."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError

import pytest
from pydantic import ValidationError
from support.turn_strategies import PROBLEM, after, attempt

import backtrack_mrt.envs.backtrack
import backtrack_mrt.envs.single
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.envs.single import Single
from backtrack_mrt.grading.verdict import grade_of
from backtrack_mrt.protocol import ProtocolViolation, standing_steps
from backtrack_mrt.rollouts.episode import Episode, graded
from backtrack_mrt.types import Completion, Finish, Parsed, StopReason, Trajectory

REVISION = "## Step 2: y\n\\boxed{2}"
VIOLATIONS = {  # name → (turns before, the turn that breaks the protocol)
    "missing_step": ([], "The answer is \\boxed{4}"),
    "step_order": ([], "## Step 2: x\n\\boxed{4}"),
    "missing_answer": ([], "\\boxed{4}\n## Step 1: x\n\\boxed{"),
    "missing_verdict": ([attempt(2)], "I see no error."),
    "repeated_verdict": ([attempt(2)], "No error\nError in step 1"),
    "step_out_of_range": ([attempt(2)], "Error in step 3"),
    "missing_target": ([attempt(2), "Error in step 1"], "Backtrack to step one"),
    "repeated_target": ([attempt(2), "Error in step 1"], "Backtrack to step 0\nBacktrack to step 0"),
    "target_out_of_range": ([attempt(2), "Error in step 1"], "Backtrack to step 2"),
}


def episode(*texts: str, **settings: int) -> Episode:
    return after(Episode(Backtrack(**settings), Trajectory(PROBLEM, ())), *texts)


def phases(run: Episode) -> list[str]:
    return [turn.spec.phase for turn in run.turns]


def test_the_order_of_the_phases():
    run = episode(attempt(3), "Error in step 2", "Backtrack to step 1", REVISION, "No error")
    assert phases(run) == ["attempt", "detect", "backtrack", "revise", "detect"]
    assert run.stop is StopReason.FINISHED
    assert run.trajectory().answer == "2"


def test_a_revision_goes_on_from_the_step_that_was_kept():
    run = episode(attempt(3), "Error in step 3", "Backtrack to step 1")
    assert run.spec is not None
    assert run.spec.fields == {"target": "1", "next": "2"}
    after(run, REVISION)
    assert [step.splitlines()[0] for step in standing_steps(run.turns)] == ["## Step 1: x", "## Step 2: y"]


def test_the_beginning_is_step_0():
    run = episode(attempt(3), "Error in step 1", "Backtrack to step 0", "## Step 1: z\n\\boxed{5}")
    assert len(standing_steps(run.turns)) == 1
    assert run.trajectory().answer == "5"


def test_a_withdrawn_answer_does_not_stand():
    run = episode(attempt(1), "Error in step 1")
    assert run.trajectory().answer == "4"
    assert after(run, "Backtrack to step 0").trajectory().answer is None


def test_the_revision_limit():
    revise = ["Error in step 1", "Backtrack to step 0", attempt(1)]
    run = episode(attempt(1), *revise, *revise, max_revisions=2)
    assert run.stop is StopReason.TURN_LIMIT
    assert len(run.turns) == run.protocol.max_turns == 7
    assert episode(attempt(1), max_revisions=0).stop is StopReason.TURN_LIMIT


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_has_its_name_and_outcome_0(name):
    before, broken = VIOLATIONS[name]
    run = after(episode(*before), broken)
    assert run.turns[-1].violation == name
    assert run.turns[-1].parsed is None
    trajectory = graded(run.trajectory(), lambda answer: grade_of(1.0))
    assert (trajectory.stop, trajectory.answer, trajectory.outcome) == (StopReason.VIOLATION, None, 0.0)


def test_violations_of_the_limits_are_named_by_every_protocol():
    for protocol in (Backtrack(attempt_tokens=2), Single(attempt_tokens=2)):
        run = Episode(protocol, Trajectory(PROBLEM, ()))
        assert run.advance(attempt(1), Completion((1, 2), (0.0, 0.0), Finish.LENGTH)).violation == "turn_too_long"
        run = Episode(protocol, Trajectory(PROBLEM, ()))
        assert run.advance(None, Completion((), (), Finish.STOP)).violation == "not_text"


def test_every_violation_is_documented_and_every_documented_one_exists():
    documented = set(re.findall(r"^    ([a-z]+(?:_[a-z]+)+)  ", backtrack_mrt.envs.backtrack.__doc__, re.MULTILINE))
    assert documented == {*VIOLATIONS, "turn_too_long", "not_text"}
    assert set(re.findall(r"`([a-z_]+)`", backtrack_mrt.envs.single.__doc__)) == {
        "missing_answer", "turn_too_long", "not_text"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (BacktrackPhase.ATTEMPT, "##  Step 1: x \\boxed{4}"),
        (BacktrackPhase.ATTEMPT, " ## Step 1: x \\boxed{4}"),
        (BacktrackPhase.ATTEMPT, "## Step １: x \\boxed{4}"),
        (BacktrackPhase.ATTEMPT, "## Step 0001: x \\boxed{4}"),
        (BacktrackPhase.DETECT, "no error"),
        (BacktrackPhase.DETECT, " No error"),
        (BacktrackPhase.DETECT, "No error\r"),
        (BacktrackPhase.DETECT, "x\u2028No error"),
        (BacktrackPhase.DETECT, "Error in step ٢"),
        (BacktrackPhase.DETECT, "Error in step 0001"),
        (BacktrackPhase.BACKTRACK, "Backtrack to step -1"),
        (BacktrackPhase.BACKTRACK, "Backtrack to step 1_0"),
        (BacktrackPhase.BACKTRACK, "Backtrack to step " + "1" * 5000),
    ],
)
def test_what_is_not_the_marker_byte_for_byte_is_no_marker(phase, text):
    turns = episode(attempt(2), "Error in step 1").turns[: 0 if phase == BacktrackPhase.ATTEMPT else 1]
    with pytest.raises(ProtocolViolation) as caught:
        Backtrack().parse(phase, text, turns)
    assert caught.value.name.startswith("missing")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("## Step 1: \\boxed{3}\n## Step 2: x \\boxed{4}", "4"),
        ("## Step 1: x \\boxed{4}, not \\boxed{5", "4"),
        ("## Step 1: x \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("## Step 1: x \\boxed{}", ""),
    ],
)
def test_the_last_balanced_box_is_the_answer(text, answer):
    assert Backtrack().parse(BacktrackPhase.ATTEMPT, text, []).answer == answer


def test_the_budget_cuts_the_last_turn_and_keeps_the_answer_that_stands():
    run = Episode(Backtrack(token_budget=6), Trajectory(PROBLEM, ()))
    run.advance(attempt(1), Completion((1,) * 4, (0.0,) * 4, Finish.STOP))
    assert run.spec is not None
    assert run.spec.max_new_tokens == run.budget_left == 2
    turn = run.advance("No err", Completion((1, 1), (0.0, 0.0), Finish.LENGTH))
    assert (turn.parsed, turn.violation, run.stop) == (None, None, StopReason.BUDGET)
    assert run.trajectory().answer == "4"


def test_a_turn_that_ends_with_the_budget_still_counts():
    run = Episode(Backtrack(token_budget=2), Trajectory(PROBLEM, ()))
    run.advance(attempt(1), Completion((1, 1), (0.0, 0.0), Finish.STOP))
    assert run.stop is StopReason.BUDGET
    assert run.turns[0].parsed is not None
    run = Episode(Single(token_budget=2), Trajectory(PROBLEM, ()))
    run.advance("\\boxed{4}", Completion((1, 1), (0.0, 0.0), Finish.STOP))
    assert run.stop is StopReason.FINISHED


def test_a_completion_cut_off_by_the_models_context_is_out_of_budget():
    run = Episode(Backtrack(), Trajectory(PROBLEM, ()))
    run.advance("## St", Completion((1,), (0.0,), Finish.LENGTH))
    assert run.stop is StopReason.BUDGET


def test_the_callers_mistakes_are_errors():
    run = episode(max_revisions=0)
    with pytest.raises(ValueError, match="513 tokens for a turn of at most 512"):
        run.advance("x", Completion((1,) * 513, (0.0,) * 513, Finish.STOP))
    after(run, attempt(1))
    with pytest.raises(RuntimeError, match="has ended"):
        after(run, "No error")


def test_single_wants_a_box_only():
    assert Single().parse(BacktrackPhase.ATTEMPT, "It is \\boxed{4}.", []) == Parsed(answer="4")
    with pytest.raises(ProtocolViolation, match="no balanced"):
        Single().parse(BacktrackPhase.ATTEMPT, "It is \\boxed{4", [])


def test_protocols_are_frozen_and_strict():
    with pytest.raises(ValidationError):
        Backtrack(max_revision=1)
    with pytest.raises(ValidationError):
        Backtrack(token_budget=0)
    with pytest.raises((ValidationError, FrozenInstanceError)):
        Backtrack().max_revisions = 4
    longer = Backtrack(max_revisions=3, token_budget=100).prolonged(2)
    assert (longer.max_revisions, longer.token_budget, longer.max_answers) == (6, 200, 7)
    assert Single(token_budget=64).prolonged(2) == Single(token_budget=128)
