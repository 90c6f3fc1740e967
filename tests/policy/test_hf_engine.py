"""What is special about the Hugging Face engine: nothing is computed twice, and the trainer's model stays untouched."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.lora import MergedAdapter
from backtrack_mrt.policy.hf.packed_forward import PACK
from backtrack_mrt.types import Request, Sampling, TokenIds

VOCABULARY = 40
FREE = Sampling()


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))


def with_adapter(**changes: Any) -> PeftModel:
    options: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}
    return get_peft_model(llama(), LoraConfig(**{**options, **changes}))


@torch.no_grad()
def plain_logprobs(model: Any, prefix: TokenIds, continuation: TokenIds) -> np.ndarray:
    model.eval()
    rows = model(torch.tensor([prefix + continuation]), use_cache=False).logits[0].float().log_softmax(-1)
    at = range(len(prefix) - 1, len(prefix) + len(continuation) - 1)
    return np.array([float(rows[i, token]) for i, token in zip(at, continuation, strict=True)])


def roll(
    engine: HFEngine, prompts: list[TokenIds], turns: int, instruction: int = 5, length: int = 12
) -> tuple[list[TokenIds], list[list[int]]]:
    """Trajectories over ragged turns, and for each the lengths of its prefixes."""
    chance = random.Random(7)
    histories, cuts = list(prompts), [[len(prompt)] for prompt in prompts]
    for turn in range(turns):
        if turn:
            histories = [ids + tuple(chance.choices(range(VOCABULARY), k=instruction)) for ids in histories]
        asked = [Request(ids, chance.randrange(1, length), 50 * i + turn) for i, ids in enumerate(histories)]
        done = engine.generate(asked, FREE)
        histories = [ids + completion.token_ids for ids, completion in zip(histories, done, strict=True)]
        for row, ids in zip(cuts, histories, strict=True):
            row.append(len(ids))
    return histories, cuts


def group_prompts() -> list[TokenIds]:
    return [tuple((7 * p + i) % VOCABULARY for i in range(20 + p)) for p in range(3) for _ in range(4)]


# Nothing twice ---------------------------------------------------------------------------------------------------


def test_every_token_is_computed_once() -> None:
    engine = HFEngine(llama(), max_rows=12)
    prompts = group_prompts()
    trajectories, _ = roll(engine, prompts, turns=5)
    prefill_shared = sum(map(len, prompts)) - sum(map(len, set(prompts)))
    unread = len(trajectories)  # the last token of a trajectory is drawn, never read
    assert engine.stats.computed == sum(map(len, trajectories)) - prefill_shared - unread


def test_histories_are_kept_when_calls_are_larger_than_a_batch() -> None:
    engine = HFEngine(llama(), max_rows=5)
    trajectories, _ = roll(engine, group_prompts(), turns=4)
    assert engine.stats.computed <= sum(map(len, trajectories))


def test_scoring_computes_the_branches_only() -> None:
    model = llama()
    engine = HFEngine(model, max_rows=12)
    trajectories, cuts = roll(engine, group_prompts(), turns=4)
    before = engine.stats.computed
    prefixes = [(*ids[:cut], 1, 2, 3) for ids, row in zip(trajectories, cuts, strict=True) for cut in row]
    scores = engine.score(prefixes, [(4, 5)] * len(prefixes))
    # 4 nodes a branch (3 forced, the answer without its last token) and the end of a trajectory, which is not yet read;
    # the members of a group share the branch off their prompt.
    assert engine.stats.computed - before <= 4 * len(set(prefixes)) + len(trajectories)
    for prefix, row in list(zip(prefixes, scores, strict=True))[::7]:
        np.testing.assert_allclose(row, plain_logprobs(model, prefix, (4, 5)), atol=1e-4)


def test_scoring_without_history_reads_it_once() -> None:
    engine = HFEngine(with_adapter(), max_rows=4)
    trajectories, cuts = roll(engine, group_prompts(), turns=4)
    prefixes = [(*ids[:cut], 1, 2, 3) for ids, row in zip(trajectories, cuts, strict=True) for cut in row]
    before = engine.stats.computed
    with engine.reference():
        engine.score(prefixes, [(4, 5)] * len(prefixes))
    assert engine.stats.computed - before <= sum(map(len, trajectories)) + 5 * len(prefixes)


def test_sampled_forced_answers_leave_the_trajectories_cached() -> None:
    engine = HFEngine(llama(), max_rows=12)
    trajectories, cuts = roll(engine, group_prompts(), turns=4)
    forced = [(*ids[:cut], 1, 2, 3) for ids, row in zip(trajectories, cuts, strict=True) for cut in row]
    before = engine.stats.computed
    engine.generate([Request(ids, 3, i) for i, ids in enumerate(forced * 2)], FREE)
    assert engine.stats.computed - before <= len(forced) * 2 * (3 + 3)
    before = engine.stats.computed
    engine.generate([Request((*ids, 3), 1, 0) for ids in trajectories], FREE)
    assert engine.stats.computed - before <= 2 * len(trajectories)
    assert len(engine._policy.cache.rows) <= 24


def test_old_rows_make_room() -> None:
    model = llama()
    engine = HFEngine(model, max_rows=4)
    for problem in range(8):
        prompt = tuple((problem * 11 + i * i) % VOCABULARY for i in range(9))
        done = engine.generate([Request(prompt, 5, seed) for seed in range(4)], FREE)
        np.testing.assert_allclose(done[3].logprobs, plain_logprobs(model, prompt, done[3].token_ids), atol=1e-4)
    assert len(engine._policy.cache.rows) <= 8


def test_prompts_longer_than_a_pass() -> None:
    model = llama(max_position_embeddings=3 * PACK)
    engine = HFEngine(model, max_rows=4)
    chance = random.Random(0)
    prompts = [tuple(chance.choices(range(VOCABULARY), k=n)) for n in (PACK + 50, 30, 700, 1)]
    done = engine.generate([Request(p, 3, 0) for p in prompts], FREE)
    assert engine.stats.computed == sum(map(len, prompts)) + 4 * 2
    for prompt, completion in zip(prompts, done, strict=True):
        np.testing.assert_allclose(completion.logprobs, plain_logprobs(model, prompt, completion.token_ids), atol=2e-4)


# The trainer's model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [True, False])
def test_the_model_is_left_bit_for_bit(adapter: bool) -> None:
    model: Any = with_adapter(lora_dropout=0.5) if adapter else llama()
    model.train()
    odd = model.get_input_embeddings().eval()  # somebody froze one module
    before = copy.deepcopy(model.state_dict())
    pointers = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    engine = HFEngine(model, max_rows=4)
    engine.generate([Request((1, 2, 3), 5, 0)], FREE)
    engine.score([(1, 2, 3)], [(4,)])
    if adapter:
        with engine.reference():
            engine.score([(1, 2, 3)], [(4,)])
    engine.sync()
    engine.generate([Request((1, 2, 3), 5, 0)], FREE)
    engine.release()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == pointers
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trainable
    assert [m for m in model.modules() if not m.training] == [m for m in model.modules() if m is odd]
    assert model.config._attn_implementation == "sdpa"
    loss = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()  # training goes on, with the adapter unmerged
    assert all(p.grad is not None for name, p in model.named_parameters() if name in trainable)


def test_an_error_inside_restores_the_model() -> None:
    model = with_adapter().train()
    engine = HFEngine(model, max_rows=4)
    with pytest.raises(IndexError):
        engine.generate([Request((VOCABULARY + 1,), 5, 0)], FREE)
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert not any(getattr(module, "merged", False) for module in model.modules())


def test_sync_forgets_what_the_old_weights_cached() -> None:
    model = with_adapter()
    engine = HFEngine(model, max_rows=4)
    prefix = (1, 2, 3, 4)
    old = engine.score([prefix], [(5, 6)])[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(2.0)
    engine.sync()
    new = engine.score([prefix], [(5, 6)])[0]
    assert abs(new - old).max() > 1e-3
    np.testing.assert_allclose(new, plain_logprobs(model, prefix, (5, 6)), atol=1e-4)


def test_reference_is_the_model_without_its_adapter() -> None:
    model = with_adapter()
    engine = HFEngine(model, max_rows=4)
    policy = engine.score([(1, 2, 3)], [(5, 6)])[0]
    with engine.reference():
        reference = engine.score([(1, 2, 3)], [(5, 6)])[0]
        completion = engine.generate([Request((1, 2, 3), 4, 0)], FREE)[0]
    np.testing.assert_allclose(policy, plain_logprobs(model, (1, 2, 3), (5, 6)), atol=1e-4)
    with model.disable_adapter():
        np.testing.assert_allclose(reference, plain_logprobs(model, (1, 2, 3), (5, 6)), atol=1e-4)
        truth = plain_logprobs(model, (1, 2, 3), completion.token_ids)
    np.testing.assert_allclose(completion.logprobs, truth, atol=1e-4)
    assert abs(policy - reference).max() > 1e-3


def test_reference_model_of_full_fine_tuning() -> None:
    model, frozen = llama(), llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    engine = HFEngine(model, max_rows=4, reference_model=frozen)
    with engine.reference():
        inside = engine.score([(1, 2)], [(3,)])[0]
    np.testing.assert_allclose(inside, plain_logprobs(frozen, (1, 2), (3,)), atol=1e-4)
    np.testing.assert_allclose(engine.score([(1, 2)], [(3,)])[0], plain_logprobs(model, (1, 2), (3,)), atol=1e-4)
    with pytest.raises(ValueError, match="no reference policy"), HFEngine(model, max_rows=4).reference():
        pass


@pytest.mark.parametrize("variant", [{"use_dora": True}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]}])
def test_adapters_of_other_kinds(variant: dict[str, Any]) -> None:
    targets = ["q_proj", "v_proj", "up_proj"]
    model = llama(attention_bias=True, mlp_bias=True)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **variant))
    engine = HFEngine(model, max_rows=4)
    (done,) = engine.generate([Request((1, 2, 3), 6, 0)], FREE)
    np.testing.assert_allclose(done.logprobs, plain_logprobs(model, (1, 2, 3), done.token_ids), atol=1e-4)


@pytest.mark.parametrize(("dtype", "merged"), [(torch.float32, True), (torch.bfloat16, False)])
def test_only_float32_weights_are_merged(dtype: torch.dtype, merged: bool) -> None:
    """In 16 bits an update smaller than half of a weight's last digit would be rounded away."""
    model = with_adapter().to(dtype)
    weight = model.get_base_model().model.layers[0].mlp.up_proj.get_base_layer().weight
    before = weight.data_ptr()
    with MergedAdapter(model).swapped_in():
        assert (weight.data_ptr() != before) is merged
    assert weight.data_ptr() == before


def test_bfloat16() -> None:
    model = llama(initializer_range=0.1).to(torch.bfloat16)
    engine = HFEngine(model, max_rows=4)
    trajectories, _ = roll(engine, [(1, 2, 3), (1, 2, 3), (9,)], turns=3)
    scores = engine.score([ids[:4] for ids in trajectories], [(4, 5)] * 3)
    for ids, row in zip(trajectories, scores, strict=True):
        np.testing.assert_allclose(row, plain_logprobs(model, ids[:4], (4, 5)), atol=0.1)


def test_models_with_other_attention_are_refused() -> None:
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=4,
        )
    )
    with pytest.raises(UserError, match="sliding"):
        HFEngine(model, max_rows=4)
