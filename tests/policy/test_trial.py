"""Architectures that the cached decoding does not serve are refused in one line; those that it serves are as before."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen3Config,
)

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.trial import check_decoding

SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_SHAPE = {**SHAPE, "intermediate_size": 64, "num_key_value_heads": 2}
SERVED = [LlamaConfig(**LLAMA_SHAPE), Qwen3Config(**LLAMA_SHAPE, head_dim=8), Phi3Config(**LLAMA_SHAPE, pad_token_id=0)]
NOT_SERVED = [
    GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=32),
    FalconConfig(**SHAPE),
    MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4),
]


def kind(config: PretrainedConfig) -> str:
    return str(config.model_type)


@pytest.mark.parametrize("config", SERVED, ids=kind)
def test_what_is_served_passes_and_is_not_changed(config: PretrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_decoding(model, "mine")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("config", NOT_SERVED, ids=kind)
def test_what_is_not_served_is_one_line(config: PretrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError, match=f"does not serve its architecture {config.model_type}") as error:
        check_decoding(model, "mine")
    assert "\n" not in str(error.value)
    assert "vllm" in error.value.remedy


def test_a_difference_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_config(SERVED[0])
    score = HFEngine.score
    monkeypatch.setattr(HFEngine, "score", lambda *args: [scores - 0.01 for scores in score(*args)])
    with pytest.raises(UserError, match=r"off by 0\.01"):
        check_decoding(model, "mine")


def test_long_rope_is_used_up_to_where_its_angles_change() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 64
    config = Phi3Config(
        **LLAMA_SHAPE,
        pad_token_id=0,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_parameters=rope,
    )
    assert HFEngine(AutoModelForCausalLM.from_config(config), max_rows=2).context_length == 64
