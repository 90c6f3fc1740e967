"""Shared fixtures, and the Hypothesis profiles: quick, or with `HYPOTHESIS_PROFILE=long` 20,000 examples per test.

Tests see no GPU, unless `BACKTRACK_MRT_TEST_DEVICE=cuda` shows it to those that are for one (`make gpu`).
"""

from __future__ import annotations

import os

if os.environ.get("BACKTRACK_MRT_TEST_DEVICE") != "cuda":  # many tests compare with numbers worked out on the CPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.runs import environment
from backtrack_mrt.types import Problem

environment.prepare()  # as a program that starts
# What a script starts in the background ignores Ctrl-C, and so would the programs that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)
pytest_plugins = ["support.engine_subjects", "support.pictures"]

settings.register_profile("quick", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

RANDOM_LLAMA = {  # the shape of the model in `folder`
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}
CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}"
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
BARE = (  # the embedded model's: a reply starts right after the instruction
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
R1 = (  # cuts the thought out of earlier replies, and begins a reply inside one
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|Assistant|>{{ message['content'].split('</think>')[-1] }}{{ eos_token }}"
    "{% else %}{{ '<|User|>' if message['role'] == 'user' else '' }}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
SPECIAL = {  # template → special tokens: BOS, the end of a message, others
    CHATML: ("<|im_start|>", "<|im_end|>"),
    LLAMA_3: ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    BARE: ("<bos>", "<eos>"),
    R1: ("<bos>", "<eos>", "<|User|>", "<|Assistant|>"),
}


def byte_tokenizer(template: str, special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte, and `special` tokens: BOS, EOS and others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[1],
        additional_special_tokens=list(special[2:]),
        chat_template=template,
    )


@pytest.fixture(scope="session", params=[CHATML, LLAMA_3, BARE], ids=["chatml", "llama-3", "bare"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with each of the chat templates that must work."""
    return byte_tokenizer(request.param, SPECIAL[request.param])


@pytest.fixture(scope="session")
def chat(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    return ChatFormat(tokenizer)


@pytest.fixture
def make_tokenizer() -> Callable[[str], PreTrainedTokenizerFast]:
    """A byte-level tokenizer with a template of the test's own and Llama 3's special tokens."""
    return lambda template: byte_tokenizer(template, SPECIAL[LLAMA_3])


@pytest.fixture(scope="session")
def problem() -> Problem:
    return Problem(id="two", question="What is 1 + 1?", answer="2", source="test")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is out of reach."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without their report, which takes longer than a short training."""
    for module in ("train", "held_out"):
        monkeypatch.setattr(f"backtrack_mrt.training.{module}.rebuild", lambda *_, **__: None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a byte-level tokenizer, as a directory."""
    path = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**RANDOM_LLAMA)).save_pretrained(path)
    byte_tokenizer(BARE, SPECIAL[BARE]).save_pretrained(path)
    return path
