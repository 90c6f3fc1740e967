"""One free stream: where it is cut, what its pieces are, its answer, and answers forced in the midst of it."""

from __future__ import annotations

import math
import re
import time
from itertools import pairwise

import gymnasium
import pytest
from conftest import LLAMA_3, R1, SPECIAL, byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.turn_strategies import PROBLEM, SPECIAL_TEXT

import backtrack_mrt.envs.open_ended
from backtrack_mrt.env import EpisodeEnv
from backtrack_mrt.envs.open_ended import OpenEnded
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import merged
from backtrack_mrt.rollouts.chat import ByteChat, ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.rollout import cut, force_answers, rollout
from backtrack_mrt.types import Completion, Finish, Sampling, StopReason, Trajectory

PROMPTS = load_prompts("open_ended", "instruct")
EAGER = OpenEnded(min_characters=1, token_budget=4096)
THOUGHT = ["First, 1 + 1 = 3 or \\boxed{3}.\n\n", "Wait, that is wrong. ", "Alternatively, count."]
MESSAGE = "\n</think>\n\nIt is \\boxed{2}. Wait for it."
CHATS = [ByteChat(), ChatFormat(byte_tokenizer(LLAMA_3, SPECIAL[LLAMA_3]))]
FRAGMENTS = [
    *("Wait", "wait", "Waiting", ". ", "! ", "\n", "\n\n", "\n\n\n", " ", ".", "But wait", "Hold on", "Hmm", "Wait,"),
    *("\nWait", ". Wait", "\nHold on. But wait", "\n\nSo. Hmm", "? Alternatively") * 3,
    *("</think>", "<think>", "\\boxed{1}", "\\boxed{", "}", "x", "數", "😀", "\ud800", "\x00", *SPECIAL_TEXT),
]
streams = st.one_of(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=40).map("".join), st.text(max_size=60))
protocols = st.builds(OpenEnded, min_characters=st.sampled_from([1, 1, 1, 5, 12]), paragraphs=st.booleans())


def pieces_of(text: str, protocol: OpenEnded = EAGER) -> list[str]:
    """The text between the cuts."""
    offsets = [0, *protocol.cuts(text), len(text)]
    return [text[a:b] for a, b in pairwise(offsets)]


def sampled(chat, text: str, finish: Finish = Finish.STOP) -> Completion:
    """`text` as a model would have sampled it, every token with a logprob of its own."""
    ids = chat.encode(text) + ((chat.eos_id,) if finish is Finish.STOP else ())
    return Completion(ids, tuple(-float(i) for i in range(len(ids))), finish)


def stream(chat, *texts: str, **settings: int) -> Trajectory:
    """The trajectory of a model that replies with these texts as one message."""
    script = [sampled(chat, "".join(texts)).token_ids]
    protocol = OpenEnded(**{"min_characters": 1, "token_budget": 512, **settings})
    engine, sampling = ScriptedEngine(script), Sampling(stop_ids=chat.stop_ids)
    (trajectory,) = rollout([PROBLEM], [0], protocol, Dialogue(chat, PROMPTS), engine, sampling)
    return trajectory


@pytest.mark.parametrize(
    "pieces",
    [
        THOUGHT,
        ["It is 5! ", "But wait:\n", "Wait"],
        ["Wait, it begins with a cue."],
        ["Waiting. I wait, Wait; wait. waits Wait\tWait .Wait"],
        ["So it is 5.\n", "Hmm, no.\n", "Hold on. ", "Let me check."],
        ["<think>\nSo 5.\n\n", "Wait.\n</think>\n\nWait. It is \\boxed{5}.\n\nWait."],
        [""],
    ],
)
def test_cuts_at_cues_that_begin_a_sentence_or_paragraph_of_the_thought(pieces):
    assert pieces_of("".join(pieces)) == pieces


def test_cuts_at_paragraphs():
    protocol = OpenEnded(paragraphs=True, min_characters=1)
    pieces = ["<think>\n\n", "One. Wait.\n\n", "Two\nlines\n\n\n", "數\n\n</think>\n\nIt is\n\n\\boxed{2}"]
    assert pieces_of("".join(pieces), protocol) == pieces


def test_an_episode_before_a_cut_has_a_least_length():
    text = "Wait. " * 20
    assert all(len(piece) >= 15 for piece in pieces_of(text, OpenEnded(min_characters=15))[:-1])
    assert len(pieces_of(text)) == 20


def test_cues_are_the_users_and_taken_literally():
    own = OpenEnded(cues=["a.c", "(b"], min_characters=1)
    assert pieces_of("x\nabc\na.c\n(b\n(bc", own) == ["x\nabc\n", "a.c\n", "(b\n(bc"]
    for cues in ([], [""]):
        with pytest.raises(ValidationError):
            OpenEnded(cues=cues)


@given(st.sampled_from(CHATS), streams, protocols, st.integers(1, 6), st.sampled_from([Finish.STOP, Finish.LENGTH]))
def test_pieces_are_the_completion_cut_where_the_protocol_says(chat, text, protocol, most, finish):
    completion = sampled(chat, text or "x", finish)
    decoded = chat.decode(completion.token_ids)
    offsets = protocol.cuts(decoded)
    assert list(offsets) == sorted(set(offsets))
    assert all(0 < offset < len(decoded) for offset in offsets)
    pieces = cut(completion, protocol, Dialogue(chat, PROMPTS), most)
    kept = merged(offsets, most)
    assert len(pieces) == 1 + len(kept) == min(1 + len(offsets), most)
    assert sum((piece.token_ids for piece in pieces), ()) == completion.token_ids
    assert sum((piece.logprobs for piece in pieces), ()) == completion.logprobs
    assert [piece.finish for piece in pieces] == [Finish.CUT] * (len(pieces) - 1) + [finish]
    starts = [0, *kept, len(decoded)]
    texts = [decoded[a:b] for a, b in pairwise(starts)]
    assert [chat.decode(piece.token_ids) for piece in pieces] == texts, "a byte is a token: cuts are exact"
    if not protocol.paragraphs:
        assert all(piece.startswith(tuple(protocol.cues)) for piece in texts[1:])
    assert all("</think>" not in piece for piece in texts[:-1])


def test_a_cut_inside_a_token_falls_before_it():
    class Words(ByteChat):
        """A token is a word with the blank before it, as of a BPE tokenizer."""

        words = ("So 5.", " Wait", ",", " no.", "\n\nWait", " it", " is.")

        def decode(self, ids):
            return "".join(self.words[i] for i in ids if i < self.eos_id)

    ids = (0, 1, 2, 3, 4, 5, 6, ByteChat.eos_id)
    pieces = cut(Completion(ids, (0.0,) * 8, Finish.STOP), EAGER, Dialogue(Words(), PROMPTS), 9)
    assert [piece.token_ids for piece in pieces] == [(0,), (1, 2, 3), (4, 5, 6, ByteChat.eos_id)]


@pytest.mark.parametrize(
    "unit", ["Wait", "Wait ", ". Wait", "\nWait", "\n\n", "\n", ". ", "</think>", "\\boxed{", "{", "But wai", " "]
)
@pytest.mark.parametrize("paragraphs", [False, True])
def test_a_million_characters_are_cut_and_read_in_linear_time(unit, paragraphs):
    text = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    protocol = OpenEnded(paragraphs=paragraphs, min_characters=1)
    protocol.cuts(text)
    assert protocol.parse("think", text + "\n</think>\\boxed{4}", []).answer == "4"
    assert time.perf_counter() - start < 10.0  # quadratic time would be hours


def test_a_long_completion_is_cut_in_few_decodings():
    decoded = 0

    class Counting(ByteChat):
        def decode(self, ids):
            nonlocal decoded
            decoded += len(ids)
            return super().decode(ids)

    completion = sampled(ByteChat(), "so.\nWait, " * 5_000)
    assert len(cut(completion, EAGER, Dialogue(Counting(), PROMPTS), 32)) == 32
    assert decoded < 32 * 17 * len(completion.token_ids), "a binary search per cut"


@pytest.mark.parametrize("chat", CHATS, ids=["bytes", "llama-3"])
def test_a_stream_is_a_trajectory_of_its_pieces(chat):
    trajectory = stream(chat, *THOUGHT, MESSAGE)
    assert [turn.text for turn in trajectory.turns] == [*THOUGHT[:2], THOUGHT[2] + MESSAGE]
    assert {turn.spec.phase for turn in trajectory.turns} == {"think"}
    assert {turn.instruction_ids for turn in trajectory.turns} == {()}
    assert trajectory.token_ids == trajectory.prompt_ids + sampled(chat, "".join([*THOUGHT, MESSAGE])).token_ids
    assert -1 not in trajectory.turn_index()
    assert [turn.completion.finish for turn in trajectory.turns] == [Finish.CUT, Finish.CUT, Finish.STOP]
    assert [turn.parsed.answer for turn in trajectory.turns] == [None, None, "2"]
    assert (trajectory.stop, trajectory.answer) == (StopReason.FINISHED, "2")


def test_the_answer_is_that_of_the_message_not_of_the_thought():
    chat = CHATS[0]
    assert stream(chat, *THOUGHT).answer == "3", "without </think> the whole stream is searched"
    unanswered = stream(chat, *THOUGHT, "\n</think>\nI am done.")
    assert [turn.violation for turn in unanswered.turns] == [None, None, "missing_answer"]
    assert (unanswered.stop, unanswered.answer) == (StopReason.VIOLATION, None)
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", backtrack_mrt.envs.open_ended.__doc__))
    assert documented == {"missing_answer", "turn_too_long", "not_text", "max_episodes"}


def test_the_budget_ends_the_stream_and_the_answer_so_far_stands():
    chat = CHATS[0]
    budget = len("".join(THOUGHT[:2])) + 15
    trajectory = stream(chat, *THOUGHT, MESSAGE, token_budget=budget)
    assert [turn.text for turn in trajectory.turns] == [*THOUGHT[:2], THOUGHT[2][:15]]
    assert (trajectory.stop, trajectory.answer, trajectory.sampled_tokens) == (StopReason.BUDGET, "3", budget)
    assert trajectory.turns[-1].violation is None


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_number_of_episodes_is_bounded(most):
    trajectory = stream(CHATS[0], *["So.\n", "Wait.\n"] * 20, "\\boxed{2}", max_episodes=most)
    assert len(trajectory.turns) == most == OpenEnded(max_episodes=most).max_turns
    assert (trajectory.stop, trajectory.answer) == (StopReason.FINISHED, "2")
    (more,) = rollout(
        [stream(CHATS[0], "So.\n", "Wait.\n", "Wait. \\boxed{2}").branch(1)],
        [0],
        OpenEnded(max_episodes=max(most, 2), min_characters=1),
        Dialogue(CHATS[0], PROMPTS),
        ScriptedEngine([sampled(CHATS[0], "x.\nWait.\n" * 20 + "\\boxed{2}").token_ids]),
        Sampling(stop_ids=CHATS[0].stop_ids),
    )
    assert len(more.turns) == max(most, 2), "of a branch as well"


@pytest.mark.parametrize("most", [3, 6, 10])
def test_no_turn_holds_most_of_a_long_stream(most):
    """45 episodes, as R1-type models write them, in few turns: the last one used to hold nearly all of the text."""
    pieces = [f"Step {n}: I add {n} and {n + 1} again and again.\n" for n in range(44)]
    trajectory = stream(
        CHATS[0], *(f"Wait. {piece}" for piece in pieces), "Wait. \\boxed{2}", max_episodes=most, token_budget=9999
    )
    shares = [len(turn.completion.token_ids) / trajectory.sampled_tokens for turn in trajectory.turns]
    assert len(shares) == most
    assert max(shares) < 1.2 / most


def test_pieces_without_end_run_into_the_limit():
    run = Episode(OpenEnded(max_episodes=3), Trajectory(PROBLEM, ()))
    while run.stop is None:
        run.advance("hm", Completion((1,), (0.0,), Finish.CUT))
    assert (run.stop, len(run.turns)) == (StopReason.TURN_LIMIT, 3)


def test_a_branch_goes_on_in_the_same_message():
    chat, seen = CHATS[1], []
    trajectory = stream(chat, *THOUGHT, MESSAGE)

    def reply(prefix):
        seen.append(prefix)
        return sampled(chat, "Hence \\boxed{7}.").token_ids

    engine, sampling = ScriptedEngine(reply), Sampling(stop_ids=chat.stop_ids)
    (other,) = rollout([trajectory.branch(2)], [0], EAGER, Dialogue(chat, PROMPTS), engine, sampling)
    assert seen == [trajectory.prefix_ids(2)], "nothing is said in between"
    assert (len(other.turns), other.given, other.answer) == (3, 2, "7")


@pytest.mark.parametrize("chat", CHATS, ids=["bytes", "llama-3"])
def test_a_forced_answer_closes_the_thought_in_the_same_message(chat):
    thought = ("<think>\n" + THOUGHT[0], *THOUGHT[1:])
    dialogue, trajectory = Dialogue(chat, PROMPTS), stream(chat, *thought, MESSAGE)
    closing = chat.encode("\n</think>\n\nThe final answer is \\boxed{")
    at_once = chat.encode("The final answer is \\boxed{")
    assert dialogue.forced(trajectory, 0) == trajectory.prompt_ids + at_once, "no thought is open"
    for turns in (1, 2):
        assert dialogue.forced(trajectory, turns) == trajectory.prefix_ids(turns) + closing
    asked = chat.following("Time is up. Give the final answer now, without any further work.", sampled(chat, ""))
    over = trajectory.token_ids + asked + chat.encode("The final answer is \\boxed{")
    assert dialogue.forced(trajectory, 3) == over, "a message that has ended is not gone on with"
    cut_off = stream(chat, *thought, MESSAGE, token_budget=40)
    assert dialogue.forced(cut_off, len(cut_off.turns)) == cut_off.token_ids + closing


def test_a_message_that_has_ended_is_opened_again_where_no_other_can_follow():
    chat = ChatFormat(byte_tokenizer(R1, SPECIAL[R1]), one_message=True)
    dialogue, trajectory = Dialogue(chat, PROMPTS), stream(chat, *THOUGHT, MESSAGE)
    assert chat.decode(trajectory.prompt_ids).endswith("<|Assistant|><think>\n")
    assert trajectory.stop is StopReason.FINISHED
    for turns in (0, 1, 2):
        closing = chat.encode("\n</think>\n\nThe final answer is \\boxed{")
        assert dialogue.forced(trajectory, turns) == trajectory.prefix_ids(turns) + closing
    opened = trajectory.token_ids[:-1] + chat.encode("\n\nThe final answer is \\boxed{")
    assert dialogue.forced(trajectory, 3) == opened, "its thought is closed already, its end is taken off"
    engine, sampling = ScriptedEngine([chat.encode("2}.")]), Sampling(stop_ids=chat.stop_ids)
    (ended,) = force_answers([trajectory], [0], dialogue, engine, sampling, 3)
    assert ended.token_ids == opened + chat.encode("2}.")


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_forced_answers_are_trajectories_in_one_message(turns):
    chat = CHATS[1]
    dialogue, start = Dialogue(chat, PROMPTS), stream(chat, *THOUGHT, MESSAGE).branch(turns)
    engine, sampling = ScriptedEngine([chat.encode("2}.")]), Sampling(stop_ids=chat.stop_ids)
    (ended,) = force_answers([start], [0], dialogue, engine, sampling, 3)
    assert ended.token_ids == dialogue.forced(start, turns) + chat.encode("2}.")
    assert (ended.answer, len(ended.turns), ended.given) == ("2", turns + 1, turns)


def test_in_the_environment_a_text_is_the_message_and_a_cut_completion_goes_on():
    env = EpisodeEnv(EAGER, [PROBLEM], PROMPTS, grade=lambda _, answer: "right" if answer == "2" else "wrong")
    observation, _ = env.reset(seed=0)
    assert observation.startswith("What is 1 + 1?")
    for text in THOUGHT[:2]:
        observation, reward, terminated, truncated, info = env.step(sampled(ByteChat(), text, Finish.CUT))
        assert (observation, reward, terminated, truncated, info["phase"]) == ("", 0.0, False, False, "think")
        assert env.prefix_ids == env.trajectory.token_ids
    *_, reward, terminated, truncated, info = env.step(THOUGHT[2] + MESSAGE)
    assert (reward, terminated, truncated, info["answer"]) == (1.0, True, False, "2")
    assert math.isnan(env.trajectory.turns[-1].completion.logprobs[0])
    env = gymnasium.make("backtrack_mrt/OpenEnded-v0", problems=[PROBLEM])
    env.reset(seed=0)
    assert env.step("".join([*THOUGHT, MESSAGE]))[1:4] == (1.0, True, False)
