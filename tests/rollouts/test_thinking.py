"""Hybrid thinkers: off in every protocol, on in one message, with the template's own tokens."""

from __future__ import annotations

import pytest
from conftest import byte_tokenizer
from support.hybrid_templates import HYBRIDS, SPECIAL_TOKENS
from support.short_runs import request

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.assembly import dialogue_with
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.types import Completion, Finish, Problem, Trajectory

PROTOCOLS = ("backtrack", "retry", "single", "open-ended")
EMPTY = {  # how a reply is begun with thinking off
    "qwen3": "<think>\n\n</think>\n\n",
    "qwen3.5": "<think>\n\n</think>\n\n",
    "smollm3": "<think>\n\n</think>\n",
    "lfm2.5": "",
    "nemotron-3": "<think></think>",
    "deepseek-v3.1": "</think>",
}
OPENED = {"qwen3.5": "<think>\n", "lfm2.5 opened": "<think>", "nemotron-3": "<think>\n", "deepseek-v3.1": "<think>"}
OPENED["always"] = "<think>\n"


def tokenizer_of(name):
    return byte_tokenizer(HYBRIDS[name], SPECIAL_TOKENS)


def said(chat, text):
    ids = (*chat.encode(text), chat.eos_id)
    return Completion(ids, (0.0,) * len(ids), Finish.STOP)


@pytest.mark.parametrize("name", EMPTY)
def test_off_a_conversation_is_appended_to(name):
    chat = ChatFormat(tokenizer_of(name))
    assert chat.follows
    assert chat.begun.endswith("<|im_start|>assistant\n" + EMPTY[name])
    ids = chat.opening("2 + 2?")
    for text in ("Five.", "Four."):
        done = said(chat, text)
        ids += done.token_ids + chat.following("Sure?", after=done)
    begun = "<|im_start|>assistant\n" + EMPTY[name]
    turns = [f"<|im_start|>user\n{asked}<|im_end|>\n{begun}" for asked in ("2 + 2?", "Sure?", "Sure?")]
    told = f"{turns[0]}Five.<|im_end|>\n{turns[1]}Four.<|im_end|>\n{turns[2]}"
    assert chat.decode(ids).endswith(told)


@pytest.mark.parametrize("name", HYBRIDS)
def test_on_in_one_message(name):
    chat = ChatFormat(tokenizer_of(name), one_message=True)
    assert chat.begun.endswith("<|im_start|>assistant\n" + OPENED.get(name, ""))
    off = ChatFormat(tokenizer_of(name), one_message=True, thinking=False)
    assert off.begun.count("<think>") == off.begun.count("</think>") - (name == "deepseek-v3.1")


@pytest.mark.parametrize("name", HYBRIDS)
@pytest.mark.parametrize("env", PROTOCOLS)
@pytest.mark.parametrize("thinking", [False, None])
def test_every_protocol_speaks_with_thinking_off(name, env, thinking):
    prompts = load_prompts(env, "instruct")
    if thinking is None and name == "always" and env != "open-ended":
        with pytest.raises(UserError, match=r"--env open-ended.*--model\.thinking false"):
            dialogue_with(tokenizer_of(name), prompts)
        return
    dialogue = dialogue_with(tokenizer_of(name), prompts, thinking)
    start = Trajectory(Problem("x", "2 + 2?", "4"), dialogue.chat.opening("2 + 2?"))
    text = dialogue.chat.decode(dialogue.forced(start, 0))
    assert text.count("<think>") <= text.count("</think>") or name in OPENED
    assert text.endswith("\\boxed{")


def test_opened_thoughts_stay_where_the_template_keeps_them():
    chat = ChatFormat(tokenizer_of("lfm2.5 opened"))
    done = said(chat, "So.</think>Four.")
    ids = chat.opening("2 + 2?") + done.token_ids + chat.following("Sure?", after=done)
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>So.</think>Four."}]
    messages.append({"role": "user", "content": "Sure?"})
    own = chat.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, keep_past_thinking=True
    )
    assert chat.decode(ids) == own


def test_the_setting_is_a_flag(tmp_path):
    assert request(tmp_path, "--model.thinking", "false").config.model == ModelSection(thinking=False)
    assert request(tmp_path).config.model.thinking is None
