"""Questions that the context has no room for are left out, and counted."""

from __future__ import annotations

import pytest
from conftest import CHATML, SPECIAL, byte_tokenizer

from backtrack_mrt.envs.retry import Retry
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.row_lengths import fitting
from backtrack_mrt.types import Problem, TurnSpec

DIALOGUE = Dialogue(ChatFormat(byte_tokenizer(CHATML, SPECIAL[CHATML])), load_prompts("retry", "terse"))
SHORT, LONG = Problem("short", "1 + 1?", "2"), Problem("long", "1 + 1?" * 200, "2")


def test_long_questions_are_left_out_and_counted() -> None:
    kept, notes = fitting([SHORT, LONG], Retry(), DIALOGUE, 1000, field="data.train")
    assert kept == [SHORT]
    assert notes == ["data.train: left out: 1 of 2 questions are longer than the context of 1000 tokens"]
    assert fitting([SHORT, LONG], Retry(), DIALOGUE, 8000, field="data.train") == ([SHORT, LONG], [])


def test_a_prompt_that_fills_the_context_to_the_last_token_is_too_long() -> None:
    spec = Retry().next_turn(LONG, [])
    assert isinstance(spec, TurnSpec)
    length = len(DIALOGUE.opening(LONG, spec))
    assert fitting([SHORT, LONG], Retry(), DIALOGUE, length, field="f")[0] == [SHORT]
    assert fitting([SHORT, LONG], Retry(), DIALOGUE, length + 1, field="f")[0] == [SHORT, LONG]


def test_too_few_are_refused() -> None:
    with pytest.raises(UserError, match="2 of 2 questions are longer"):
        fitting([LONG, LONG], Retry(), DIALOGUE, 100, field="data.train")


def test_room_is_left_for_a_forced_answer() -> None:
    spec = Retry().next_turn(LONG, [])
    assert isinstance(spec, TurnSpec)
    length = len(DIALOGUE.opening(LONG, spec)) + 30
    assert fitting([LONG], Retry(), DIALOGUE, length + 1, field="f", reserve=lambda problem: 30)[0] == [LONG]
    with pytest.raises(UserError, match=rf"longer than the context, less 30 for a forced answer, of {length} tokens"):
        fitting([LONG], Retry(), DIALOGUE, length, field="f", reserve=lambda problem: 30)
