"""Warm-start data from own rollouts: hand-made pieces, and a scripted policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from backtrack_mrt.data.demonstrations.attempts import Attempt
from backtrack_mrt.data.demonstrations.files import Demonstration
from backtrack_mrt.data.demonstrations.stitching import (
    PROTOCOLS,
    Pieces,
    best_target,
    chosen,
    demonstrations,
    shared_steps,
)
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.graders.math import Math
from backtrack_mrt.plugins import load
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.prover import MetaProver, Prefix
from backtrack_mrt.rollouts.replay import tokenise
from backtrack_mrt.training.warm_start import WarmStart
from backtrack_mrt.types import Completion, FloatArray, Group, Problem, Request, Sampling, Trajectory

PROBLEM = Problem("p", "1 + 1 + 1", "3")
RIGHT = "## Step 1: 1 + 1 = 2\n## Step 2: 2 + 1 = 3\n\\boxed{3}"
LATE = "## Step 1: 1 + 1 = 2\n## Step 2: 2 + 1 = 4\n\\boxed{4}"
EARLY = "## Step 1: 1 + 1 = 3\n## Step 2: 3 + 1 = 4\n\\boxed{4}"
REVISED = "## Step 2: 2 + 1 is 3\n\\boxed{3}"


def byte_dialogue(env: str = "backtrack") -> Dialogue:
    return Dialogue(ByteChat(), load_prompts(env, "instruct"))


class Told(MetaProver):
    """Values that are told, and the prefixes they were asked for."""

    def __init__(self, dialogue: Dialogue, values: Sequence[float]) -> None:
        super().__init__(dialogue, ScriptedEngine())
        self.told, self.asked = list(values), list[str]()

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        self.asked += [self.dialogue.chat.decode(ids) for ids, _ in prefixes]
        return np.array([self.told.pop(0) for _ in prefixes])

    def answer_tokens(self, problem: Problem) -> int:
        return 4


def warm_start(values: Sequence[float], *replies: str, attempts: int = 2, branches: int = 1) -> WarmStart:
    """A policy that says the replies in this order."""
    dialogue = byte_dialogue()
    engine = ScriptedEngine([(*dialogue.chat.encode(text), dialogue.chat.eos_id) for text in replies])
    collector = Collector(Backtrack(), dialogue, engine, Math(), None, max_rows=2)
    return WarmStart(collector, Told(dialogue, values), 1.0, attempts, branches, seed=0)


def found(warm: WarmStart) -> Pieces:
    (pieces,) = warm.pieces(warm.draw([PROBLEM]))
    return pieces


def test_the_value_chooses_the_step_and_a_right_continuation_is_kept() -> None:
    warm = warm_start(
        [0.1, 0.6], RIGHT, LATE, "Fine.\nNo error", "2 + 1 is not 4.\nError in step 2", REVISED, "No error."
    )
    assert found(warm) == Pieces(
        wrong=LATE,
        target=1,
        check="2 + 1 is not 4.\nError in step 2",
        revision=REVISED,
        closing="No error.",
        right=RIGHT,
        right_check="Fine.\nNo error",
    )


def test_values_are_asked_for_after_every_step_but_the_last() -> None:
    warm = warm_start([0.1, 0.6], RIGHT, LATE)
    (group,) = warm.draw([PROBLEM])
    (values,) = warm.step_values([group.members[1].trajectory])
    assert values.tolist() == [0.1, 0.6]
    nothing, one = warm.prover.asked  # type: ignore[attr-defined]
    assert "Step 1" not in nothing.split("1 + 1 + 1")[1].split("Time")[0]
    assert "## Step 1: 1 + 1 = 2\n" in one
    assert "2 + 1 = 4" not in one


def test_without_a_fitting_turn_the_plain_one_is_taken() -> None:
    pieces = found(warm_start([0.1, 0.6], RIGHT, LATE, "Error in step 1", "Error in step 1", "## Step 9: ?", "?"))
    assert (pieces.check, pieces.right_check, pieces.closing) == ("Error in step 2", "No error", "No error")
    assert pieces.revision == "## Step 2: 2 + 1 = 3\n\\boxed{3}"  # the right attempt begins in the same way


def test_no_right_continuation_no_demonstration_of_it() -> None:
    pieces = found(
        warm_start([0.1, 0.6], RIGHT, EARLY, "No error", "Error in step 2", "## Step 2: 3 + 1 = 4\n\\boxed{4}")
    )
    assert pieces.revision is None
    assert set(demonstrations(pieces)) == {"correct"}


def test_attempts_of_one_kind() -> None:
    all_right = found(warm_start([], RIGHT, RIGHT, "No error"))
    assert set(demonstrations(all_right)) == {"correct"}
    all_wrong = found(warm_start([0.1, 0.6], LATE, LATE, "Error in step 2", REVISED, "No error"))
    assert all_wrong.revision == REVISED
    assert demonstrations(all_wrong) == {}  # the other forms would have nothing to set against it
    assert demonstrations(found(warm_start([], "no steps", "no steps"))) == {}


class Recording(ScriptedEngine):
    """Says the same again and again, and keeps the seeds of what was asked."""

    def __init__(self) -> None:
        super().__init__(lambda prefix: (*byte_dialogue().chat.encode(RIGHT), byte_dialogue().chat.eos_id))
        self.seeds: list[int] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.seeds += [request.seed for request in requests]
        return super().generate(requests, sampling)


def test_what_a_problem_yields_does_not_depend_on_the_others() -> None:
    other, seeds = Problem("q", "2 + 2", "4"), []
    for problems in ([PROBLEM, other], [other]):
        warm, engine = warm_start([]), Recording()
        warm = replace(warm, collector=replace(warm.collector, engine=engine))
        warm.draw(problems)
        seeds.append(engine.seeds)
    assert seeds[0][2:] == seeds[1]
    assert len(set(seeds[0])) == 4


def test_what_does_not_fit_into_the_budget_is_left_out() -> None:
    warm = warm_start([0.1, 0.6], LATE, LATE, "Error in step 2")
    short = Backtrack(token_budget=len(LATE) + 20)  # bytes: room for the attempt and its check
    warm = replace(warm, collector=warm.collector.under(short))
    assert found(warm) == Pieces()


def test_labelled_attempts_take_the_place_of_own_ones() -> None:
    warm = warm_start([0.1, 0.6], "No error", "Error in step 2", REVISED, "No error")
    labelled = [Attempt(PROBLEM, RIGHT, True), Attempt(PROBLEM, LATE, False), Attempt(PROBLEM, "x" * 9000, False)]
    (group,) = warm.labelled(labelled)
    assert [member.trajectory.turns[0].right for member in group.members] == [True, False]
    assert set(demonstrations(warm.pieces([group])[0])) == set(PROTOCOLS)


def test_the_pair_that_shares_most_is_chosen() -> None:
    (group,) = warm_start([], EARLY, RIGHT, LATE, attempts=3).draw([PROBLEM])
    wrong, right = chosen(group, random.Random(0))
    assert wrong is not None
    assert right is not None
    assert (wrong.turns[0].text, right.turns[0].text) == (LATE, RIGHT)
    assert shared_steps(wrong, right) == 1
    assert shared_steps(right, right) == 2


@pytest.mark.parametrize(("values", "target"), [([0.2], 0), ([0.1, 0.5, 0.3], 1), ([0.5, 0.1, 0.5], 2)])
def test_best_target(values: list[float], target: int) -> None:
    assert best_target(np.array(values)) == target


def test_what_the_forms_are_made_of() -> None:
    pieces = Pieces(LATE, 1, "Error in step 2", REVISED, "No error", RIGHT, "All right.\nNo error")
    made = {
        form: [(str(phase), span.text, span.learn) for phase, spans in turns for span in spans]
        for form, turns in demonstrations(pieces).items()
    }
    wrong = ("attempt", LATE, False)
    assert made == {
        "backtrack": [
            wrong,
            ("detect", "Error in step 2", True),
            ("backtrack", "Backtrack to step 1", True),
            ("revise", REVISED, True),
            ("detect", "No error", True),
        ],
        "correct": [("attempt", RIGHT, True), ("detect", "All right.\nNo error", True)],
        "rise": [wrong, ("retry", RIGHT, True)],
        "star": [("attempt", RIGHT, True)],
    }


@pytest.mark.parametrize("form", PROTOCOLS)
def test_the_protocols_accept_what_is_stitched(form: str) -> None:
    turns = demonstrations(Pieces(LATE, 1, "Error in step 2", REVISED, "No error", RIGHT))[form]
    demonstration = Demonstration(PROBLEM, tuple(spans for _, spans in turns))
    tokenised = tokenise(
        demonstration,
        load("backtrack_mrt.envs", PROTOCOLS[form], EpisodeProtocol, "env")(),
        byte_dialogue(PROTOCOLS[form]),
    )
    assert isinstance(tokenised.trajectory, Trajectory)
    assert len(tokenised.trajectory.turns) == len(turns)
    assert tokenised.trajectory.answer == "3"


def test_groups_need_not_have_accepted_members() -> None:
    assert chosen(Group(PROBLEM, ()), random.Random(0)) == (None, None)
