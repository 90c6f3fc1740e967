"""The output layer in compiled code: the numbers and gradients of the module, which answers what is of another kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoders import SERVED, SHAPE, model_of
from support.fixed_rollouts import FixedCollector, make_setup
from torch import Tensor, nn
from transformers import LlamaConfig
from trl.trainer.utils import add_fused_lm_head

from backtrack_mrt.policy.hf import kernels
from backtrack_mrt.policy.hf.lora import decoder_of
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.training import compiled_output
from backtrack_mrt.training.compiled_output import CompiledOutput, compile_output
from backtrack_mrt.training.packing import IGNORED, Packed, pack, packed_attention
from backtrack_mrt.training.rl import PolicyTrainer
from backtrack_mrt.training.supervised import CrossEntropyTrainer, weighted_row

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler")


def output_of(vocabulary: int, width: int, temperature: float = 1.0, spread: float = 1.0) -> CompiledOutput:
    layer = nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
    layer.weight.mul_(spread)
    code = kernels.library()
    assert code is not None
    return CompiledOutput(layer, code, temperature)


def by_the_module(output: CompiledOutput, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = (output.layer(hidden) / output.temperature).log_softmax(-1)
    asked = targets != IGNORED
    chosen = logprobs.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return chosen * asked, -(logprobs.exp() * logprobs).sum(-1) * asked


def gradient(logprobs: Tensor, hidden: Tensor) -> Tensor:
    return torch.autograd.grad((logprobs * torch.arange(len(logprobs)).cos()).sum(), hidden)[0]


@settings(max_examples=60, deadline=None)
@given(
    vocabulary=st.one_of(st.integers(2, 40), st.sampled_from([383, 384, 385, 1000])),
    lanes=st.integers(1, 6),
    tokens=st.one_of(st.integers(0, 40), st.sampled_from([127, 128, 129, 300])),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    spread=st.sampled_from([0.0, 1.0, 200.0]),
    seed=st.integers(0, 99),
)
def test_the_numbers_and_gradients_are_the_modules(
    vocabulary: int, lanes: int, tokens: int, temperature: float, spread: float, seed: int
) -> None:
    torch.manual_seed(seed)
    output = output_of(vocabulary, 16 * lanes, temperature, spread)
    hidden = torch.randn(tokens, 16 * lanes, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,)).masked_fill_(torch.rand(tokens) < 0.3, IGNORED)
    ours, theirs = output.logprobs_and_entropies(hidden, targets), by_the_module(output, hidden, targets)
    size = max(float(theirs[0].detach().abs().max()), 1.0) if tokens else 1.0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5 * size)
    assert not ours[1].requires_grad
    torch.testing.assert_close(gradient(ours[0], hidden), gradient(theirs[0], hidden), rtol=1e-3, atol=1e-4 * size)


def test_what_is_nearly_certain_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    output, targets = output_of(500, 48), torch.arange(20)
    hidden = (output.layer.weight[:20] * 5 * torch.arange(1, 21)[:, None]).requires_grad_()
    exact = hidden.detach().double().requires_grad_()
    theirs = (exact @ output.layer.weight.double().T).log_softmax(-1)[range(20), targets]
    others = -theirs.detach().expm1()
    assert 0 < others.min() < 1e-6 < 0.1 < others.max()
    ours = torch.autograd.grad(output.logprobs_and_entropies(hidden, targets)[0].sum(), hidden)[0].double()
    errors = (ours - torch.autograd.grad(theirs.sum(), exact)[0]).norm(dim=1) / others
    assert errors.max() < 1e-3


def test_the_numbers_do_not_depend_on_the_threads() -> None:
    output, hidden = output_of(500, 48), torch.randn(1000, 48, requires_grad=True)
    targets, before = torch.randint(500, (1000,)), torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        logprobs, entropies = output.logprobs_and_entropies(hidden, targets)
        found.append(torch.cat([logprobs, entropies, gradient(logprobs, hidden).flatten()]))
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_numbers_that_are_none_are_seen() -> None:
    """A step whose numbers are not finite is left out: they must not be lost on the way."""
    output, hidden = output_of(500, 48), torch.randn(3, 48)
    hidden[1, 7] = torch.nan
    found = output.logprobs_and_entropies(hidden, torch.tensor([1, 2, 499]))[0]
    assert found.isfinite().tolist() == [True, False, True]


def rows_for(model: Any) -> Packed:
    return pack([[5, 6, 7]] * 3, [[8, 9], [10, 11, 12], [3]], model)


def answered(model: Any, rows: Packed, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    model.zero_grad()
    with packed_attention(model.config):
        found = model(**rows.inputs(), shift_labels=targets[None], fused_lm_head=True)
    (found.log_probs[0] * torch.arange(len(targets)).cos()).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return found.log_probs.detach(), found.entropy.detach(), gradients


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_model_answers_as_with_trls_output_layer(kind: str, temperature: float) -> None:
    model = model_of(SERVED[kind])
    add_fused_lm_head(decoder_of(model), temperature, outputs=("log_probs", "entropy"))
    rows = rows_for(model)
    theirs = answered(model, rows, rows.targets)
    assert compile_output(decoder_of(model), temperature)
    assert compile_output(decoder_of(model), temperature)  # as another trainer would
    for one, other in zip(answered(model, rows, rows.targets), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algo", ["star", "grpo"])
def test_trainers_take_it(algo: str, tmp_path: Path) -> None:
    """The adapter after one update is that of TRL's output layer, and of cross-entropy on logits."""
    collector = FixedCollector()
    every = [scored for group in collector.scored.values() for scored in group]
    rows = [weighted_row(replace(scored, weights=np.ones(len(scored.trajectory.turns)))) for scored in every]
    found = []
    for fuses in (True, False):
        setup = make_setup(tmp_path / str(fuses), "--algo", algo, "--model.full_finetuning", "false")
        setup = replace(setup, model=model_of(LlamaConfig(**SHAPE | {"vocab_size": 300}, head_dim=32)))
        trainer: Any = (
            CrossEntropyTrainer(setup, rows=rows, epochs=1)
            if algo == "star"
            else PolicyTrainer(setup, problems=collector.problems, collector=cast(Collector, collector))
        )
        assert trainer.fuses
        if not fuses:
            trainer.fuses, decoder = False, decoder_of(setup.model)
            decoder.forward = decoder.forward.before
        trainer.fit()
        found.append(torch.cat([p.detach().flatten() for p in setup.model.parameters() if p.requires_grad]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-6)
    assert not torch.equal(*found)  # it was another code


def test_other_calls_are_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(SERVED["llama"])
    add_fused_lm_head(decoder_of(model), outputs=("log_probs", "entropy"))
    rows, ids = rows_for(model), torch.tensor([[5, 6, 7, 8]])
    assert compile_output(decoder_of(model), 1.0)
    monkeypatch.setattr(compiled_output, "_Asked", None)  # whoever calls it fails
    assert model(input_ids=ids).logits.shape[:2] == (1, 4)
    assert model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.shape == (1, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answered(model, rows, rows.targets)


@pytest.mark.parametrize("kind", ["trained", "biased", "adapted", "16 bits"])
def test_layers_of_another_kind_stay_as_they_are(kind: str) -> None:
    model = model_of(SERVED["llama"], **({"target_modules": ["q_proj", "lm_head"]} if kind == "adapted" else {}))
    decoder = decoder_of(model)
    if kind == "trained":
        decoder.lm_head.weight.requires_grad_(True)
    if kind == "biased":
        decoder.lm_head.bias = nn.Parameter(torch.zeros(len(decoder.lm_head.weight)), requires_grad=False)
    if kind == "16 bits":
        decoder.bfloat16()
    before = decoder.forward
    assert not compile_output(decoder, 1.0)
    assert decoder.forward == before


def test_code_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(model_of(SERVED["llama"]))
    right = CompiledOutput.ask

    def shifted(self: CompiledOutput, *given: Any) -> tuple[Tensor, ...]:
        logprobs, *others = right(self, *given)
        return logprobs - 0.1, *others

    monkeypatch.setattr(CompiledOutput, "ask", shifted)
    assert not compile_output(decoder, 1.0)
