"""The update's packed forward pass and the fused LoRA layer: the numbers and gradients of the plain ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from conftest import RANDOM_LLAMA
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from backtrack_mrt.policy.hf.plain_engine import PlainEngine
from backtrack_mrt.training.fused_lora import FusedLora, fuse_adapters
from backtrack_mrt.training.packing import ATTENTION, alike, pack, packed_attention
from backtrack_mrt.training.row_places import PackedRow
from backtrack_mrt.types import Request, Sampling

ids = st.lists(st.integers(3, 299), min_size=1, max_size=9)
Rows = Sequence[tuple[list[int], list[int]]]  # prompt and completion


def model(kv_heads: int = 2) -> PeftModel:
    """A random Llama with an adapter that is not zero."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(LlamaConfig(**RANDOM_LLAMA | {"num_key_value_heads": kv_heads}))
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted.train()


def plain(policy: PeftModel, rows: Rows) -> list[Tensor]:
    """Log-probabilities of each row's completion, row by row."""
    found = []
    for prompt, completion in rows:
        logits = policy(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None]).squeeze(1))
    return found


def packed(policy: PeftModel, rows: Rows) -> list[Tensor]:
    config = policy.config
    prompts, completions = zip(*rows, strict=True)
    found = pack(prompts, completions, policy)
    before, config._attn_implementation = config._attn_implementation, ATTENTION
    logits = policy(input_ids=found.ids[None], position_ids=found.positions[None], packed=found).logits[0]
    config._attn_implementation = before
    asked = found.targets.clamp(min=0)[:, None]
    logprobs = logits.log_softmax(-1).gather(1, asked).squeeze(1)
    return [logprobs[places[: len(completion)]] for places, completion in zip(found.scored, completions, strict=True)]


def gradient(policy: PeftModel, logprobs: Sequence[Tensor]) -> Tensor:
    """Of a weighted sum, by all trained parameters."""
    policy.zero_grad()
    weights = torch.cat(list(logprobs)).detach().cos()  # some weights of both signs
    (torch.cat(list(logprobs)) * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), ids), min_size=1, max_size=8), st.lists(ids, min_size=3, max_size=3))
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_packed_rows_have_the_numbers_and_gradients_of_single_ones(
    kv_heads: int, members: list[tuple[int, list[int]]], prompts: list[list[int]]
) -> None:
    """Members of a group share their prompt; prompts may be a single token, and one the beginning of another."""
    policy, rows = model(kv_heads), [(prompts[problem], completion) for problem, completion in members]
    ours, theirs = packed(policy, rows), plain(policy, rows)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(policy, packed(policy, rows)), gradient(policy, theirs), rtol=1e-3, atol=1e-5)


def test_a_prompt_is_read_once() -> None:
    prompt = [5, 6, 7, 8]
    found = pack([prompt, prompt, [9]], [[1, 2], [3], [4]], model(2))
    assert found.ids.tolist() == [5, 6, 7, 8, 1, 8, 9]
    assert found.positions.tolist() == [0, 1, 2, 3, 4, 3, 0]
    assert found.targets.tolist() == [-100, -100, -100, 1, 2, 3, 4]
    assert found.scored.tolist() == [[3, 4], [5, 0], [6, 0]]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_rows_of_like_length_are_attended_together(lengths: list[int]) -> None:
    runs = list(alike([PackedRow(range(n)) for n in lengths]))
    assert sorted(len(row.own) for run in runs for row in run) == sorted(lengths)
    for run in runs:
        widths = [len(row.own) for row in run]
        assert max(widths) * len(run) <= 1.25 * sum(widths)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_fused_adapter_is_peft_s(checkpointing: bool) -> None:
    rows = [([4, 5, 6], [7, 8, 9, 10]), ([4, 5, 6], [11, 12])]
    policy, fused = model(), model()
    fuse_adapters(fused)
    assert sum(isinstance(module, FusedLora) for module in fused.modules()) == 7 * RANDOM_LLAMA["num_hidden_layers"]
    if checkpointing:
        fused.enable_input_require_grads()
        fused.gradient_checkpointing_enable({"use_reentrant": False})
    for one, other in zip(plain(fused, rows), plain(policy, rows), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    ours, theirs = gradient(fused, plain(fused, rows)), gradient(policy, plain(policy, rows))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    with fused.disable_adapter(), policy.disable_adapter():
        torch.testing.assert_close(torch.cat(plain(fused, rows)), torch.cat(plain(policy, rows)))


def test_a_rollout_between_packed_updates_has_the_model_s_own_attention() -> None:
    policy = model()
    policy.config._attn_implementation = "sdpa"
    engine, requests = PlainEngine(policy, max_rows=2), [Request((5, 6, 7), 4, seed=0)]
    alone = engine.generate(requests, Sampling())
    with packed_attention(policy.config):
        assert engine.generate(requests, Sampling()) == alone
        assert policy.config._attn_implementation == ATTENTION
