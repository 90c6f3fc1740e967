"""Decoder layers in compiled code: the numbers and gradients of the modules, which do what is not of that kind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.decoders import SERVED, VOCABULARY, model_of
from torch import Tensor

from backtrack_mrt.policy.hf import kernels
from backtrack_mrt.policy.hf.packed_forward import Branches
from backtrack_mrt.training import compiled_layers
from backtrack_mrt.training.compiled_layers import compile_layers
from backtrack_mrt.training.packing import Packed, pack, packed_attention

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler")


def rows_for(model: Any, members: int = 9) -> Packed:
    """Groups that share prompts of 1, 5 and 40 tokens; some rows have branches."""
    chance = random.Random(0)
    prompts = [chance.choices(range(VOCABULARY), k=length) for length in (1, 5, 40)]
    asked = [prompts[row % 3] for row in range(members)]
    replies = [chance.choices(range(VOCABULARY), k=[1, 3, 30, 70][row % 4]) for row in range(members)]
    branches = [Branches(len(reply)) for reply in replies]
    for leaving in branches[2::3]:
        leaving.add(leaving.length // 2, (7, 8, 9))
        leaving.add(leaving.length // 2, (7, 8, 4, 5))
        leaving.add(leaving.length, (1,))
    return pack(asked, replies, model, branches)


def numbers(model: Any, rows: Packed) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all tokens that something follows, branches' too, and the gradient of a weighted sum."""
    model.zero_grad()
    with packed_attention(model.config):
        logprobs = model(**rows.inputs(), use_cache=False).logits[0].log_softmax(-1)[:, 3]
    (logprobs * torch.arange(len(logprobs)).cos()).sum().backward()
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return logprobs.detach(), torch.cat(found)


def assert_alike(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-4)
    assert float((ours[1] - theirs[1]).norm() / theirs[1].norm()) < 1e-5


@pytest.mark.parametrize("kind", SERVED)
def test_the_numbers_and_gradients_are_the_modules(kind: str) -> None:
    model = model_of(SERVED[kind])
    rows = rows_for(model)
    theirs = numbers(model, rows)
    assert compile_layers(model)
    ours = numbers(model, rows)
    assert_alike(ours, theirs)
    assert not torch.equal(ours[0], theirs[0])  # it was another code
    assert compile_layers(model)  # as another trainer would
    assert torch.equal(numbers(model, rows)[1], ours[1])


def test_not_all_layers_need_an_adapter() -> None:
    model = model_of(SERVED["llama"], target_modules=["q_proj", "down_proj"], r=19)
    rows = rows_for(model)

    def reference() -> Tensor:
        with torch.no_grad(), packed_attention(model.config), model.disable_adapter():
            logits: Tensor = model(**rows.inputs(), use_cache=False).logits
        return logits

    theirs, base = numbers(model, rows), reference()
    assert compile_layers(model)
    assert_alike(numbers(model, rows), theirs)
    torch.testing.assert_close(reference(), base, rtol=1e-4, atol=1e-4)


def test_activations_may_be_computed_again() -> None:
    model = model_of(SERVED["qwen3"])
    rows = rows_for(model)
    theirs = numbers(model, rows)
    model.train().enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert compile_layers(model)
    assert_alike(numbers(model, rows), theirs)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_gradient_of_a_layer_does_not_depend_on_the_threads() -> None:
    model = model_of(SERVED["llama"])
    assert compile_layers(model)
    layer, rows = model.get_base_model().model.layers[0], rows_for(model, members=60)
    x = torch.randn(1, len(rows.ids), model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    places = model.get_base_model().model.rotary_emb(x, rows.positions[None])
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        model.zero_grad()
        layer(x, packed=rows, position_embeddings=places).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None]))
    assert len(rows.ids) > 400
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["dropout", "a trained norm", "autocast", "padded"])
def test_what_is_not_of_the_kind_is_left_to_the_modules(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(SERVED["llama"], lora_dropout=0.1 if kind == "dropout" else 0.0)
    assert bool(compile_layers(model)) == (kind != "dropout")
    monkeypatch.setattr(compiled_layers, "_Layer", None)  # whoever calls it fails
    rows = rows_for(model)
    if kind == "a trained norm":
        for layer in model.get_base_model().model.layers:
            layer.input_layernorm.weight.requires_grad_(True)
    if kind == "padded":
        model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
            numbers(model.train(), rows)


def test_code_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(SERVED["llama"])
    right = compiled_layers._adapted

    def twice(module: Any, adapter: Any) -> Any:
        found = right(module, adapter)
        found.scale *= 2
        return found

    monkeypatch.setattr(compiled_layers, "_adapted", twice)
    assert not compile_layers(model)
    assert not isinstance(model.get_base_model().model.layers[0], compiled_layers.CompiledLayer)
