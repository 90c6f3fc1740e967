"""Backtracking in one message: where it is cut, what it claims, and that it is the backtracking protocol otherwise."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.turn_strategies import FRAGMENTS, PROBLEM, garbage

import backtrack_mrt.envs.inline
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.data.demonstrations.files import Demonstration, Span
from backtrack_mrt.data.demonstrations.inline import in_one_message, inline_text
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.inline import Inline
from backtrack_mrt.grading.verdict import grade_of
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation, Share, standing_steps
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import graded
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.prover import MetaProver, Prefix
from backtrack_mrt.rollouts.replay import tokenise
from backtrack_mrt.rollouts.rollout import rollout
from backtrack_mrt.types import Finish, FloatArray, Group, Problem, Sampling, Scored, StopReason, TokenIds, Trajectory

CHAT = ByteChat()
DIALOGUE = Dialogue(CHAT, load_prompts("inline", "terse"))
ATTEMPT = "## Step 1: 1 = 1\n## Step 2: 1 + 1 = 3\n\\boxed{3}\n"
BACK = "I doubt it.\nBacktrack to line 1\n"
REVISION = "## Step 2: 1 + 1 = 2\n\\boxed{2}\n"
VIOLATIONS = {  # name → messages, each but the last one answered with "Wait"
    "missing_step": ["It is \\boxed{2}."],
    "step_order": [ATTEMPT + BACK + "## Step 3: x\n\\boxed{2}"],
    "missing_answer": [ATTEMPT + BACK + "## Step 2: x"],
    "missing_target": [ATTEMPT, "\n## Step 3: x\n\\boxed{2}"],
    "target_out_of_range": [ATTEMPT + "Backtrack to line 2\n## Step 3: x\n\\boxed{2}"],
}


def played(*messages: str, protocol: EpisodeProtocol | None = None) -> Trajectory:
    """A policy that says these messages, one after the other."""
    replies = iter(messages)

    def reply(prefix: TokenIds) -> TokenIds:
        return (*CHAT.encode(next(replies)), CHAT.eos_id)

    sampling = Sampling(stop_ids=CHAT.stop_ids)
    return rollout([PROBLEM], [0], protocol or Inline(), DIALOGUE, ScriptedEngine(reply), sampling)[0]


def test_a_message_is_cut_where_its_turns_end() -> None:
    trajectory = played(ATTEMPT + BACK + REVISION + "No error.")
    assert [turn.spec.phase for turn in trajectory.turns] == ["attempt", "check", "revise", "check"]
    assert [turn.text for turn in trajectory.turns] == [ATTEMPT, BACK, REVISION, "No error."]
    assert [turn.completion.finish for turn in trajectory.turns] == [*[Finish.CUT] * 3, Finish.STOP]
    assert all(turn.instruction_ids == () for turn in trajectory.turns)
    assert (trajectory.stop, trajectory.answer) == (StopReason.FINISHED, "2")
    assert standing_steps(trajectory.turns) == ("## Step 1: 1 = 1", REVISION.strip())


def test_the_beginning_and_a_backtrack_before_any_answer() -> None:
    for line in ("Backtrack to the beginning", "Backtrack to beginning.", "Backtrack to line 0", "Backtrack to Line 0"):
        trajectory = played(f"## Step 1: 1 = 2\n{line}\n## Step 1: 1 + 1 = 2\n\\boxed{{2}}")
        assert [turn.spec.phase for turn in trajectory.turns] == ["attempt", "check", "revise"]
        assert trajectory.answer == "2"
        assert len(standing_steps(trajectory.turns)) == 1


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_has_its_name(name: str) -> None:
    messages = VIOLATIONS[name]
    trajectory = played(*messages, protocol=Inline().persistent(len(messages) - 1))
    assert trajectory.stop is StopReason.VIOLATION
    assert trajectory.turns[-1].violation == name
    assert name in re.findall(r"^    ([a-z_]+)  ", backtrack_mrt.envs.inline.__doc__ or "", re.MULTILINE)


def test_a_message_may_not_end_at_a_backtrack() -> None:
    assert played(ATTEMPT + BACK).turns[-1].violation == "missing_answer"


def test_beyond_the_limit_the_message_is_left_out() -> None:
    trajectory = played((ATTEMPT + BACK + REVISION) + BACK + REVISION, protocol=Inline(max_revisions=1))
    assert trajectory.stop is StopReason.TURN_LIMIT
    assert len(trajectory.turns) == 3 <= Inline(max_revisions=1).max_turns
    assert trajectory.answer == "2"
    assert played(ATTEMPT, protocol=Inline(max_revisions=0)).stop is StopReason.FINISHED


def test_the_end_is_put_off_by_wait() -> None:
    protocol = Inline().persistent(1)
    trajectory = played(ATTEMPT + "No error.", "\nBacktrack to line 1\n" + REVISION, protocol=protocol)
    assert [turn.spec.phase for turn in trajectory.turns] == ["attempt", "check", "wait", "revise"]
    assert CHAT.decode(trajectory.turns[2].instruction_ids) == "\n\nWait"
    assert trajectory.answer == "2"


def test_its_numbers_are_those_of_backtracking() -> None:
    trajectory = graded(
        played(ATTEMPT + BACK + REVISION + BACK + REVISION), lambda answer: grade_of(float(answer == "2"))
    )
    assert Inline().metrics(trajectory) == {"backtracks": 2, "backtracks_though_right": Share(1, 2)}
    assert Inline().moves(trajectory) == {"backtrack": [range(1, 3), range(3, 5)]}


@given(st.one_of(garbage, st.lists(st.sampled_from([*FRAGMENTS, ATTEMPT, BACK, REVISION]), max_size=12).map("".join)))
def test_any_text_is_cut_and_parsed(text: str) -> None:
    offsets = list(Inline().cuts(text))
    assert offsets == sorted(set(offsets))
    assert all(0 < offset < len(text) for offset in offsets)
    for phase in ("attempt", "check", "revise", "wait"):
        for parse in (Inline().parse, Inline().parse_piece):
            with suppress(ProtocolViolation):
                parse(phase, text, ())


STATE = re.compile(r"## Step \d+: (\d+)|Backtrack to (?:step|line|the) (\d+|beginning)")


def test_a_demonstration_is_written_as_one_message() -> None:
    """What is not learnt stays so; what comes of nothing is left out."""
    texts = [ATTEMPT.strip(), "Error in step 2", "Backtrack to step 1", REVISION.strip(), "Error in step 1"]
    turns = tuple((Span(text, learn=number > 0),) for number, text in enumerate(texts))
    tokenised = tokenise(in_one_message(Demonstration(PROBLEM, turns)), Inline(), DIALOGUE)
    said = [turn.text for turn in tokenised.trajectory.turns]
    assert said == [ATTEMPT, "Error in step 2\nBacktrack to line 1\n", REVISION.strip()]
    assert len(tokenised.learn) == len(tokenised.trajectory.turn_index())
    assert tokenised.learn.index(True) == len(CHAT.encode(ATTEMPT.strip()))
    assert inline_text("Backtrack to step 0") == "Backtrack to the beginning"


class StateProver(MetaProver):
    """Values that depend on the steps that stand, however they came to."""

    def prefix_values(self, prefixes: Sequence[Prefix]) -> FloatArray:
        return np.array([random.Random(repr(self._standing(ids))).random() for ids, _ in prefixes])

    def _standing(self, ids: TokenIds) -> list[str]:
        steps: list[str] = []
        for body, target in STATE.findall(CHAT.decode(ids)):
            steps = [*steps, body] if body else steps[: 0 if target == "beginning" else int(target)]
        return steps

    def answer_tokens(self, problem: Problem) -> int:
        return 1


@st.composite
def backtracking(draw: st.DrawFn) -> tuple[Demonstration, list[int]]:
    """A trajectory of the `backtrack` protocol, and its turns that end where a turn of `inline` does."""
    standing = draw(st.integers(1, 4))
    texts, ends = [_solution(draw, 1, standing)], [0, 1]
    for _ in range(draw(st.integers(0, 3))):
        target = draw(st.integers(0, standing - 1))
        standing = draw(st.integers(target + 1, target + 3))
        texts += [f"Error in step {target + 1}", f"Backtrack to step {target}", _solution(draw, target + 1, standing)]
        ends += [len(texts) - 1, len(texts)]
    if len(texts) < 10:
        texts.append("No error")
        ends.append(len(texts))
    return Demonstration(PROBLEM, tuple((Span(text),) for text in texts)), ends


def _solution(draw: st.DrawFn, first: int, last: int) -> str:
    steps = [f"## Step {k}: {draw(st.integers(0, 99))}" for k in range(first, last + 1)]
    return "\n".join([*steps, f"\\boxed{{{draw(st.integers(1, 3))}}}"])


@given(backtracking(), backtracking())
def test_both_renderings_have_the_same_values_and_credit(
    one: tuple[Demonstration, list[int]], other: tuple[Demonstration, list[int]]
) -> None:
    """A check is credited with what its verdict and its backtrack are, all other turns with the same."""
    apart, together = Dialogue(CHAT, load_prompts("backtrack", "terse")), DIALOGUE
    groups = []
    for dialogue, protocol in ((apart, Backtrack(token_budget=4096)), (together, Inline(token_budget=4096))):
        written = [d if dialogue is apart else in_one_message(d) for d, _ in (one, other)]
        trajectories = [tokenise(demonstration, protocol, dialogue).trajectory for demonstration in written]
        trajectories = [graded(t, lambda answer: grade_of(float(answer == "2"))) for t in trajectories]
        prover = StateProver(dialogue, ScriptedEngine(lambda prefix: prefix))
        members = map(Scored, trajectories, prover.values(trajectories))
        groups.append(Group(PROBLEM, tuple(members)))
    credits = {credit: [MrtRl(credit=credit).turn_weights(g) for g in groups] for credit in ("turn", "return_to_go")}
    for k, (_, ends) in enumerate((one, other)):
        turned, inlined = (group.members[k] for group in groups)
        assert turned.trajectory.outcome == inlined.trajectory.outcome
        assert turned.trajectory.answer == inlined.trajectory.answer
        np.testing.assert_array_equal(turned.values[ends], inlined.values)
        outcome = MrtRl(alpha=0).turn_weights(groups[0])[k][0]
        own, theirs = (weights[k] - outcome for weights in credits["turn"])
        np.testing.assert_allclose(np.add.reduceat(own, ends[:-1]), theirs, atol=1e-12)
        own, theirs = (weights[k] for weights in credits["return_to_go"])
        np.testing.assert_allclose(own[ends[:-1]], theirs, atol=1e-12)
