"""Names that TRL, transformers and peft call private, or do not document, and that the project relies on. A release
that drops one or changes what it takes must fail here, and not in the middle of a run."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trl.trainer.utils
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from transformers import LlamaConfig, LlamaForCausalLM, Trainer
from trl.kernels import chunked_logprob
from trl.trainer.base_trainer import _BaseTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

PACKAGE = Path(__file__).parents[2] / "backtrack_mrt"
METHODS = {  # what they take, as far as the project hands it over; further parameters must have defaults
    (GRPOTrainer, "_generate_and_score_completions"): ["self", "inputs"],
    (GRPOTrainer, "_calculate_rewards"): ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    (GRPOTrainer, "_prepare_inputs"): ["self", "generation_batch"],
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): [
        *("self", "model", "input_ids", "attention_mask", "logits_to_keep")
    ],
    (Trainer, "_get_grad_norm"): ["self", "model", "grad_norm"],
    (Trainer, "_save_checkpoint"): ["self", "model", "trial"],
    (Trainer, "_get_output_dir"): ["self", "trial"],
    # documented, and extended by the project
    (Trainer, "training_step"): ["self", "model", "inputs", "num_items_in_batch"],
    (SFTTrainer, "compute_loss"): ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    (GRPOTrainer, "log"): ["self", "logs", "start_time"],
    (Trainer, "create_scheduler"): ["self", "num_training_steps", "optimizer"],
}
ATTRIBUTES = {"_buffered_inputs", "_metrics", "_step", "_tokenizer"}  # of GRPOTrainer
ELSEWHERE = {"_use_triton", "_attn_implementation"}  # each has a test of its own


@pytest.mark.parametrize(("owner", "name"), METHODS, ids=[name for _, name in METHODS])
def test_a_method_takes_what_it_is_given(owner: type, name: str) -> None:
    expected = METHODS[owner, name]
    found = list(inspect.signature(getattr(owner, name)).parameters.values())
    assert [parameter.name for parameter in found[: len(expected)]] == expected
    assert all(parameter.default is not parameter.empty for parameter in found[len(expected) :])


def test_the_logprobs_are_the_first_of_three() -> None:
    found = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).return_annotation
    assert str(found) == "tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]"


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_an_attribute_is_set_when_the_trainer_is_built(name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(GRPOTrainer.__init__)


def test_fresh_rollouts_are_a_new_list_of_batches() -> None:
    """What `PolicyTrainer._prepare_inputs` re-buckets, and how it finds the batch under way."""
    source = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "self._buffered_inputs = [" in source
    assert "self._buffered_inputs[self._step % self.args.steps_per_generation]" in source
    assert 'self._metrics = {"train": defaultdict(list)' in inspect.getsource(GRPOTrainer.__init__)


def test_triton_is_asked_for_where_the_project_answers() -> None:
    """`prepare_trl` replaces the name in trl.trainer.utils: a function there must look it up and pass a device."""
    assert "_use_triton(hidden_states.device)" in inspect.getsource(trl.trainer.utils)
    assert list(inspect.signature(chunked_logprob._use_triton).parameters) == ["device"]


def test_attention_is_chosen_by_the_config() -> None:
    """The engine sets `_attn_implementation` for the time of a call: the next forward pass must heed it."""
    shape = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=1))
    assert model.config._attn_implementation == "sdpa"
    model.config._attn_implementation = "no such attention"
    with pytest.raises(KeyError, match="no such attention"):
        model(torch.tensor([[1, 2]]))


def test_a_lora_layer_has_what_merging_takes() -> None:
    shape = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=1))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    layer = next(module for module in adapted.modules() if type(module) is Linear)
    assert (layer.merged, layer.merged_adapters, layer.active_adapters) == (False, [], ["default"])
    assert not layer.lora_variant
    assert set(layer.lora_bias.values()) <= {False}
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    torch.testing.assert_close(layer.get_delta_weight("default"), delta)
    assert layer.get_base_layer().weight.shape == delta.shape


def private_names(path: str | Path, own: bool = True) -> set[str]:
    """Attributes with a leading underscore that a file reads, sets or defines. own: also those of `self`."""
    nodes = list(ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    names = {node.attr for node in attributes if own or ast.unparse(node.value) != "self"}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef) and own}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_no_other_private_name_is_in_use() -> None:
    """Whatever the project calls by a private name of the trainers or of a model's config is checked above; and no
    private name of its own trainers takes the place of one of theirs."""
    ours = {name for path in (PACKAGE / "training").glob("*.py") for name in private_names(path)}
    ours |= {name for path in (PACKAGE / "policy").rglob("*.py") for name in private_names(path, own=False)}
    bases = (GRPOTrainer, SFTTrainer, _BaseTrainer, Trainer)
    theirs = {name for base in bases for name in private_names(inspect.getfile(base))}
    declared = {name for _, name in METHODS if name.startswith("_")} | ATTRIBUTES | ELSEWHERE
    assert ours & (theirs | ELSEWHERE) == declared


def test_importing_the_trainers_changes_nothing() -> None:
    code = """import os, trl.trainer.utils
before, environment = trl.trainer.utils._use_triton, dict(os.environ)
import backtrack_mrt.training.train
assert trl.trainer.utils._use_triton is before
assert {n: v for n, v in os.environ.items() if "TRL" in n} == {n: v for n, v in environment.items() if "TRL" in n}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
