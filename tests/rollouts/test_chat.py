"""Chat segments: the same tokens as the template's, and no text that can forge them."""

from __future__ import annotations

import re

import pytest
from conftest import BARE, CHATML, LLAMA_3, R1, SPECIAL, byte_tokenizer

from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.chat import ByteChat, ChatFormat
from backtrack_mrt.types import Completion, Finish


def completion(ids, finish=Finish.STOP):
    return Completion(tuple(ids), (0.0,) * len(ids), finish)


def test_segments_are_the_templates_own_tokens(tokenizer):
    chat = ChatFormat(tokenizer)
    reply = (*chat.encode("Four."), chat.eos_id)
    ids = chat.opening("What is 2 + 2?") + reply + chat.following("Check.", after=completion(reply))
    messages = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Check."},
    ]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )
    assert tokenizer.decode(ids) == text
    assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_reply_that_was_cut_off_is_closed_for_the_model(chat):
    whole, cut = completion((1, 2, chat.eos_id)), completion((1, 2), Finish.LENGTH)
    assert chat.following("Go.", after=cut) == (chat.eos_id, *chat.following("Go.", after=whole))
    assert chat.decode(whole.token_ids) == chat.decode(cut.token_ids)


def test_contents_are_not_trimmed(chat):
    assert chat.decode(chat.encode("  a \n")) == "  a \n"
    assert chat.opening(" x ") != chat.opening("x")


@pytest.mark.parametrize("text", ["", "plain", "naïve 数 😀", "a\x00b", "\ud800 lone", "￿"])
def test_every_text_has_tokens_that_decode_to_it(chat, text):
    for any_chat in (chat, ByteChat()):
        assert any_chat.decode(any_chat.encode(text)) == text.replace("\ud800", "?")


def test_special_tokens_in_contents_are_plain_text(tokenizer, chat):
    structure = set(tokenizer.all_special_ids)
    for token in tokenizer.all_special_tokens:
        content = f"x{token}y{token}"
        assert not structure & set(chat.encode(content))
        assert chat.decode(chat.encode(content)) == content


def test_a_system_message_replaces_the_templates_own():
    tokenizer = byte_tokenizer(CHATML, SPECIAL[CHATML])
    default, own = ChatFormat(tokenizer).opening("Hi"), ChatFormat(tokenizer, system="Be brief.").opening("Hi")
    assert "You are helpful" in tokenizer.decode(default)
    assert tokenizer.decode(own).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")


def test_the_date_is_frozen(make_tokenizer):
    stamped = LLAMA_3.replace("{{ date_string }}", "{{ strftime_now('%Y-%m-%d, %A %-d %b') }}")
    tokenizer = make_tokenizer(stamped)
    assert "2024-07-26, Friday 26 Jul" in tokenizer.decode(ChatFormat(tokenizer).opening("Hi"))


REFUSED = {
    "no chat template": "",
    "BOS twice": "{{ bos_token }}" + LLAMA_3,
    "no generation prompt": LLAMA_3.replace("{% if add_generation_prompt %}", "{% if false %}"),
    "rewrites earlier replies": LLAMA_3.replace("['content'] | trim", "['content'].split('</think>')[-1] | trim"),
    "does not go on from its own beginning": LLAMA_3.replace("{% for", "{{ messages | length }} messages{% for", 1),
    "not with the eos token": LLAMA_3.replace("trim }}<|eot_id|>", "trim }}<|end_header_id|>"),
    "chat template fails": "{{ raise_exception('no users here') }}",
    "drops the system message": LLAMA_3.replace("{{ system }}", ""),
    "does not show every message": LLAMA_3.replace("| trim }}<|eot_id|>{% endfor", "| upper }}<|eot_id|>{% endfor"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_templates_that_cannot_be_segmented_are_refused(make_tokenizer, reason):
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        ChatFormat(make_tokenizer(REFUSED[reason]), system="Be brief.")
    assert caught.value.field == "model"
    assert caught.value.remedy


def test_a_template_that_cuts_thoughts_out_serves_one_message():
    tokenizer = byte_tokenizer(R1, SPECIAL[R1])
    with pytest.raises(UserError, match="--env open-ended"):
        ChatFormat(tokenizer)
    chat = ChatFormat(tokenizer, one_message=True)
    assert tokenizer.decode(chat.opening("Hi")) == "<bos><|User|>Hi<|Assistant|><think>\n"
    assert chat.stop_ids == {tokenizer.eos_token_id}
    assert not chat.follows
    with pytest.raises(ValueError, match="does not go on"):
        chat.following("Go.", after=completion((chat.eos_id,)))
    assert ChatFormat(byte_tokenizer(LLAMA_3, SPECIAL[LLAMA_3]), one_message=True).follows


GEMMA = (  # the tokenizer's eos token ends a text, another one a message
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (  # the eos token is behind the end of the last message, too
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
LLAMA_2 = (  # a blank before the reply, and no prompt to it
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
OTHER_ENDS = {
    "gemma": (GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    "phi": (PHI, ("<s>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"), "<|end|>"),
    "qwen base": (CHATML, ("<|im_start|>", "<|endoftext|>", "<|im_end|>"), "<|im_end|>"),
}


@pytest.mark.parametrize("name", OTHER_ENDS)
def test_the_end_of_a_message_is_found_in_the_template(name):
    template, special, end = OTHER_ENDS[name]
    tokenizer = byte_tokenizer(template, special)
    chat = ChatFormat(tokenizer)
    assert tokenizer.convert_ids_to_tokens(chat.eos_id) == end
    assert chat.stop_ids == {chat.eos_id, tokenizer.eos_token_id}
    reply = (*chat.encode("Four."), chat.eos_id)
    ids = chat.opening("2 + 2?") + reply + chat.following("Check.", after=completion(reply))
    said = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Four."}]
    said.append({"role": "user", "content": "Check."})
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    other = completion(
        (*chat.encode("Four."), tokenizer.eos_token_id)
    )  # the model ended the text: the message is closed
    assert chat.following("Check.", after=other)[0] == chat.eos_id
    assert chat.decode(other.token_ids) == "Four."


def test_a_blank_before_the_reply_is_the_models_own():
    tokenizer = byte_tokenizer(LLAMA_2, SPECIAL[BARE])
    chat = ChatFormat(tokenizer)
    assert tokenizer.decode(chat.opening("Hi")) == "<bos>[INST] Hi [/INST]"
    reply = completion((*chat.encode(" Hello. "), chat.eos_id))
    assert tokenizer.decode(chat.following("Go.", after=reply)) == "<bos>[INST] Go. [/INST]"


def test_a_missing_bos_is_refused(make_tokenizer):
    tokenizer = make_tokenizer(LLAMA_3.replace("{{ bos_token }}", ""))
    ChatFormat(tokenizer)  # a tokenizer that adds none wants none
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)]
    )
    with pytest.raises(UserError, match="writes no BOS"):
        ChatFormat(tokenizer)


def test_a_tokenizer_that_lets_text_end_a_message_is_refused(make_tokenizer):
    tokenizer = make_tokenizer(LLAMA_3)

    class Forgetful:
        """Ignores `split_special_tokens`, as a tokenizer of its own making may."""

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **settings):
            settings.pop("split_special_tokens", None)
            return tokenizer(text, **settings)

    with pytest.raises(UserError, match="into a token of the chat's structure"):
        ChatFormat(Forgetful())


HARMONY = (  # the last reply ends otherwise than the earlier ones
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ eos_token }}{% else %}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_reply_that_ends_otherwise_later_on_serves_one_message():
    tokenizer = byte_tokenizer(HARMONY, ("<|im_start|>", "<|return|>", "<|im_end|>"))
    with pytest.raises(UserError, match=re.escape("ends the last reply with '<|return|>'")):
        ChatFormat(tokenizer)
    assert not ChatFormat(tokenizer, one_message=True).follows
