"""Small random decoders of the architectures that have compiled code."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

VOCABULARY = 50
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
LLAMA = LlamaConfig(**SHAPE, head_dim=32)
SERVED = {
    "llama": LLAMA,
    "biases": LlamaConfig(**SHAPE, head_dim=16, attention_bias=True, mlp_bias=True),
    "odd heads": LlamaConfig(**{**SHAPE, "num_key_value_heads": 6}, head_dim=112),
    "scaled rope": LlamaConfig(
        **SHAPE,
        head_dim=64,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": MistralConfig(**SHAPE, head_dim=32, sliding_window=None),
    "qwen2": Qwen2Config(**{**SHAPE, "num_attention_heads": 3, "num_key_value_heads": 3}, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
}


def model_of(config: PretrainedConfig, adapter: bool = True, **options: Any) -> Any:
    """With a LoRA adapter that is not zero, unless it is to have none. options: of the adapter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    settings: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | options
    return (get_peft_model(model, LoraConfig(**settings)) if adapter else model).eval()
