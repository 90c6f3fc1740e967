"""Tiny models with random weights, one for each way in which architectures differ."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertDecoderConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2MoeConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    StableLmConfig,
)

_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_ENDS}
SHAPE: dict[str, Any] = {**_SHAPE, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128}
_HEADS = {**SHAPE, "head_dim": 8}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}
_LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}

CACHED: dict[str, PretrainedConfig] = {  # served by the cached rows
    "llama": LlamaConfig(**SHAPE),
    "qwen3": Qwen3Config(**_HEADS),
    "phi3": Phi3Config(**SHAPE),
    "experts": Qwen2MoeConfig(
        **SHAPE,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}
PLAIN: dict[str, PretrainedConfig] = {  # served as transformers does
    "learnt positions": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, **_ENDS),
    "positions of the mask": OPTConfig(**_SHAPE, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=128),
    "one key head": FalconConfig(**_SHAPE),
    "alibi": MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4, max_seq_len=128),
    "alibi too": BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, **_ENDS),
    "part of a head turned": StableLmConfig(**SHAPE),
    "latent attention": DeepseekV3Config(
        **SHAPE | {"num_key_value_heads": 4}, **_LATENT, **_EXPERTS, first_k_dense_replace=1
    ),
    "sliding window": MistralConfig(**SHAPE, sliding_window=4),
    "soft-capped logits": Gemma2Config(**_HEADS, sliding_window=4, query_pre_attn_scalar=8),
    "windows in some layers": Gemma3TextConfig(**_HEADS, sliding_window=4, query_pre_attn_scalar=8),
    "sinks": GptOssConfig(**_HEADS, sliding_window=4, num_local_experts=4, num_experts_per_tok=2),
    "convolutions": Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], block_ff_dim=64),
    "linear attention": Qwen3_5TextConfig(**_HEADS, **_LINEAR, layer_types=["linear_attention", "full_attention"]),
}
REFUSED: dict[str, PretrainedConfig] = {"sees the text to come": BertConfig(**_SHAPE, intermediate_size=64)}
SCORED_OTHERWISE = ModernBertDecoderConfig(**_SHAPE, intermediate_size=64, local_attention=4)  # a layer before its head


def random_model(config: PretrainedConfig) -> Any:
    """Always the same, with weights large enough that a mistake shows."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    return model
