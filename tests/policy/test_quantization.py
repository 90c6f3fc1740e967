"""QLoRA: the base in 4 bits. bitsandbytes packs and computes on a CPU as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import BARE, SPECIAL, byte_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.models import load_policy
from backtrack_mrt.types import Request, Sampling

SHAPE = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> ModelSection:
    path = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE, initializer_range=0.2)).save_pretrained(path)
    byte_tokenizer(BARE, SPECIAL[BARE]).save_pretrained(path)
    return ModelSection(name_or_path=str(path), quantization="nf4")


@pytest.mark.slow
def test_the_base_is_in_4_bits_and_the_adapter_learns(section: ModelSection) -> None:
    """Rollout, update and rollout again, on the very same module: packing for one must not spoil the other."""
    pytest.importorskip("bitsandbytes")
    model, _ = load_policy(section, seed=0)
    whole, _ = load_policy(section.model_copy(update={"quantization": None}), seed=0)
    packed = [p for name, p in model.named_parameters() if "base_layer" in name]
    assert packed
    assert all(p.dtype is torch.uint8 and p.numel() < 64 * 128 for p in packed)
    assert all(p.dtype is torch.float32 for p in model.parameters() if p.requires_grad)
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        error = (model(ids).logits - whole(ids).logits).norm() / whole(ids).logits.norm()
    assert 0 < error < 0.5, "rounded, but the same model"
    engine, losses = HFEngine(model, max_rows=2), []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        engine.sync()
        (completion,) = engine.generate([Request(tuple(range(5, 20)), 6, 0)], Sampling(0.0))
        whole_ids = torch.tensor([[*range(5, 20), *completion.token_ids]])
        model.train()
        logprobs = model(whole_ids).logits[0, 14:-1].log_softmax(-1)
        sampled = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert completion.logprobs == pytest.approx(sampled.tolist(), abs=1e-4)
        loss = -model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.slow
def test_gradients_are_those_of_the_rounded_weights_also_after_a_rollout(section: ModelSection) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    packed, whole = (
        load_policy(section.model_copy(update={"quantization": kind}), seed=0)[0] for kind in ("nf4", None)
    )
    for ours, plain in zip(packed.parameters(), whole.parameters(), strict=True):
        if ours.requires_grad:
            plain.data.copy_(ours.data.normal_(std=0.1))
        elif ours.dtype is torch.uint8:
            plain.data.copy_(functional.dequantize_4bit(ours.data, ours.quant_state))
    HFEngine(packed, max_rows=1).generate([Request((5, 6, 7), 4, 0)], Sampling(0.0))
    gradients = []
    for model in (packed, whole):
        model.train()
        logits = model(torch.arange(5, 30)[None]).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, torch.arange(6, 30)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_quantised_is_refused(
    section: ModelSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"model\.quantization .*weights in 4 bits cannot be trained"):
        read_request(["--model.quantization", "nf4", "--model.full_finetuning", "true"])
    monkeypatch.setattr("backtrack_mrt.policy.models.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'backtrack-mrt\[qlora\]'"):
        load_policy(section, 0)
    monkeypatch.setattr("backtrack_mrt.policy.models.find_spec", lambda name: name)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": section.name_or_path}))
    with pytest.raises(UserError, match="is an adapter"):
        load_policy(section.model_copy(update={"name_or_path": str(tmp_path)}), 0)
