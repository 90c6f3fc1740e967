"""--dry-run: sizes of a run without weights or a network, and models that cannot be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import BARE, CHATML, SPECIAL, byte_tokenizer
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, LlamaConfig

from backtrack_mrt import model_files
from backtrack_mrt.assembly import assemble
from backtrack_mrt.cli import load_config
from backtrack_mrt.config import ModelSection
from backtrack_mrt.config_files import shipped_configs
from backtrack_mrt.errors import UserError
from backtrack_mrt.model_files import resolve, shape
from backtrack_mrt.models import frozen_copy, load_policy
from backtrack_mrt.planning import GIB, Plan, plan
from backtrack_mrt.roofline import DEVICES, HERE, device

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random Llama with a byte-level tokenizer, as a directory."""
    path = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE)).save_pretrained(path)
    byte_tokenizer(BARE, SPECIAL[BARE]).save_pretrained(path)
    return path


def planned(*flags: str, on: str = "h100") -> Plan:
    return plan(load_config(flags).config, DEVICES[on])


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_planned_without_its_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = planned("--config", name)
    assert 0 < sizes.trained < sizes.parameters / 5  # an adapter
    assert sizes.tokens_per_step >= sizes.rows * sizes.sampled
    text = "\n".join(sizes.lines())
    for part in ("tokens per step", "parameters", "GiB  weights", "AdamW", "KV cache", "at the peak", "time per step"):
        assert part in text
    assert min(sizes.seconds.rollout, sizes.seconds.prover, sizes.seconds.update) > 0


@pytest.mark.parametrize(
    ("name", "parameters", "lora"),
    [("llama31_8b", 8_030_261_248, 83_886_080), ("llama32_3b", 3_212_749_824, 48_627_712)],
)
def test_parameters_are_the_published_ones(name, parameters, lora):
    sizes = planned("--config", name)
    assert (sizes.parameters, sizes.trained) == (parameters, lora)
    assert sizes.memory["weights"] == parameters * 2 + lora * 4
    copied = ["--model.full_finetuning", "true", "--prover.policy", "reference", "--engine.type", "hf"]
    full = planned("--config", name, *copied)
    assert (full.parameters, full.trained) == (parameters, parameters)
    assert full.memory["reference"] == full.memory["weights"] == full.memory["gradients"] == parameters * 2
    assert full.peak > sizes.peak > 16 * GIB


def test_the_plan_follows_the_batch(folder):
    small = ["--model.name_or_path", str(folder), "--protocol.token_budget", "100", "--training.problems_per_step", "8"]
    first = planned(*small, "--training.group_size", "4", "--training.micro_batch_size", "8", "--data.train_size", "8")
    second = planned(
        *small, "--training.group_size", "8", "--training.micro_batch_size", "16", "--data.train_size", "8"
    )
    assert (first.rows, second.rows) == (32, 64)
    assert second.tokens_per_step == 2 * first.tokens_per_step
    assert second.memory["activations"] == 2 * first.memory["activations"]
    assert first.memory["weights"] == second.memory["weights"]
    assert planned(*small[:2], "--algo", "grpo", "--protocol.token_budget", "64").prover == 0
    assert first.length <= 512  # a trajectory ends where the context does


def test_the_plan_follows_the_engine(folder):
    model = ["--model.name_or_path", str(folder), "--protocol.token_budget", "100"]
    hf, vllm = planned(*model), planned(*model, "--engine.type", "vllm")
    server = planned(*model, "--engine.type", "vllm", "--engine.server", "http://host:8000")
    assert vllm.memory["vLLM"] == hf.memory["KV cache"] + 4 * hf.parameters
    assert vllm.peak == server.peak + vllm.memory["vLLM"]
    large = planned("--config", "llama31_8b.yaml", "--engine.gpu_memory", "0.5")
    assert large.memory["vLLM"] == DEVICES["h100"].memory // 2  # of more rows than fit, some wait
    assert server.memory["KV cache"] == 0


EIGHT = ("--config", "llama31_8b.yaml", "--engine.max_rows", "64")


def test_time_follows_the_operations_and_the_bytes():
    """An update of 8 B frozen weights with checkpointing: 2 operations per weight forwards, 2 again, 2 backwards."""
    sizes = planned(*EIGHT)
    weights = sizes.network.matrix
    assert weights == sizes.parameters - 128256 * 4096 - 65 * 4096  # all but the embedding and the norms
    least = 6 * weights * sizes.tokens_per_step / (0.4 * 989e12)
    assert least < sizes.seconds.update < 1.1 * least, "attention is a small part at this length"
    read = 2 * weights + 64 * sizes.length / 2 * (32 * 2 * 8 * 128 * 2)  # with the cache of 64 rows, half full
    decoded = 4 * 1024 * (read / (0.6 * 3.35e12) + 32 * 3e-4)  # 4 × 64 rows
    assert decoded < sizes.seconds.rollout < 1.1 * decoded
    whole = planned(*EIGHT, "--model.full_finetuning", "true")
    assert whole.seconds.update == pytest.approx(sizes.seconds.update * 4 / 3)
    frozen = planned(*EIGHT, "--model.gradient_checkpointing", "false")
    assert frozen.seconds.update == pytest.approx(sizes.seconds.update * 2 / 3)
    assert planned(*EIGHT, "--algo", "grpo").seconds.prover == 0
    assert planned(*EIGHT, "--prover.estimator", "monte_carlo").seconds.prover > 10 * sizes.seconds.prover
    slower = planned(*EIGHT, on="a100").seconds
    assert slower.update == pytest.approx(sizes.seconds.update * 989 / 312)


@pytest.mark.parametrize(
    "more",
    [
        ("--training.problems_per_step", "128"),
        ("--protocol.token_budget", "2048"),
        ("--prover.estimator", "greedy", "--protocol.max_revisions", "6"),
    ],
)
def test_more_rows_or_tokens_take_more_time(more):
    first, second = planned(*EIGHT).seconds, planned(*EIGHT, *more).seconds
    assert second.rollout > first.rollout or second.prover > first.prover
    assert second.total > first.total
    assert second.update >= first.update


def test_processes_share_rows_and_sharding_the_weights(monkeypatch):
    alone = planned(*EIGHT)
    monkeypatch.setenv("WORLD_SIZE", "8")
    shared = planned(*EIGHT)
    assert shared.seconds.update == pytest.approx(alone.seconds.update / 8)
    assert shared.memory["weights"] == alone.memory["weights"]
    assert shared.memory["KV cache"] == alone.memory["KV cache"] / 2  # 32 rows, not 64
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert planned(*EIGHT).memory["weights"] == alone.memory["weights"] // 8
    assert "8 processes, cut up by FSDP" in "\n".join(planned(*EIGHT).lines())


def test_four_bits_take_less_memory_for_the_frozen_base():
    plain, packed = (planned(*EIGHT, "--engine.type", "hf", *more) for more in ((), ("--model.quantization", "nf4")))
    in_layers = plain.network.matrix - 128256 * 4096
    assert plain.memory["weights"] - packed.memory["weights"] == pytest.approx(in_layers * (2 - 0.516))
    assert packed.memory["activations"] == plain.memory["activations"]
    assert packed.seconds.rollout < plain.seconds.rollout


def test_devices_by_name():
    assert device("a100").name == "a100"
    with pytest.raises(UserError, match=r"--dry-run = 'h10': no such device.*'h100'"):
        device("h10")
    assert device(HERE).bandwidth > 1e8


def test_a_budget_beyond_the_context_is_refused(folder):
    with pytest.raises(UserError, match=r"protocol\.token_budget = 9999: the model's context holds 512 tokens"):
        planned("--model.name_or_path", str(folder), "--protocol.token_budget", "9999")


def test_load_policy_with_a_seeded_adapter(folder):
    section = ModelSection(name_or_path=str(folder))
    (one, tokenizer), (two, _), (other, _) = (load_policy(section, seed) for seed in (1, 1, 2))
    trained = {name: p for name, p in one.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)
    assert all(torch.equal(p, dict(two.named_parameters())[name]) for name, p in trained.items())
    assert not all(torch.equal(p, dict(other.named_parameters())[name]) for name, p in trained.items())
    assert tokenizer.pad_token_id is not None
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), one.disable_adapter():
        base = one(ids).logits
    assert torch.equal(one(ids).logits, base)  # the adapter changes nothing yet


def test_a_run_s_adapter_is_a_model_to_start_from(folder, tmp_path):
    ids, source = torch.tensor([[5, 6, 7]]), folder
    for step in ("warm", "warmer"):  # an adapter on a merged adapter
        model, tokenizer = load_policy(ModelSection(name_or_path=str(source)), seed=0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.5)
            trained = model(ids).logits
        source = tmp_path / step
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
        section = ModelSection(name_or_path=str(source))
        start, again = load_policy(section, seed=0)
        with torch.no_grad():
            torch.testing.assert_close(start(ids).logits, trained, rtol=1e-4, atol=1e-4)
        assert again.chat_template == tokenizer.chat_template
        assert shape(section)["hidden_size"] == SHAPE["hidden_size"]
    (tmp_path / "warm" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "./gone"}))
    with pytest.raises(UserError, match=r"model\.name_or_path = '\./gone': no such directory"):
        resolve(section)


def test_load_policy_in_full_and_its_frozen_copy(folder):
    model, _ = load_policy(ModelSection(name_or_path=str(folder), full_finetuning=True, dtype="bfloat16"), seed=0)
    assert all(p.requires_grad and p.dtype is torch.bfloat16 for p in model.parameters())
    reference = frozen_copy(model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not torch.equal(next(model.parameters()), next(reference.parameters()))
    assert not any(p.requires_grad for p in reference.parameters())


def test_the_architecture_must_be_the_model_s(folder):
    wrong = {"name_or_path": str(folder), "architecture": SHAPE | {"num_hidden_layers": 3}}
    with pytest.raises(UserError, match=r"model\.architecture\.num_hidden_layers = 3: the model's config\.json says 2"):
        load_policy(ModelSection.model_validate(wrong), 0)


def test_unknown_modules_for_the_adapter(folder):
    section = ModelSection.model_validate({"name_or_path": str(folder), "lora": {"targets": "w_proj"}})
    with pytest.raises(UserError, match=r"model\.lora\.targets = \['w_proj'\]: .*all-linear"):
        load_policy(section, 0)


def refused(name: str) -> str:
    with pytest.raises(UserError) as error:
        resolve(ModelSection(name_or_path=name))
    message = str(error.value)
    assert message.startswith("model.name_or_path = ")
    assert "\n" not in message
    return message


def test_models_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert "no such directory" in refused("gone")
    assert "no such directory" in refused("./gone/model")
    assert "no such directory" in refused("file")
    assert "holds no config.json" in refused("empty")
    assert "scripts/fetch_smollm2.py" in refused("models/smollm2-135m-instruct")
    offline = refused("meta-llama/Llama-3.1-8B-Instruct")
    assert "cannot be had from the hub" in offline
    assert "hf download meta-llama/Llama-3.1-8B-Instruct" in offline


@pytest.mark.parametrize(
    ("error", "reason"),
    [(GatedRepoError, r"is gated.*huggingface\.co/meta-llama/X"), (RepositoryNotFoundError, "no such model.*private")],
)
def test_models_that_the_hub_does_not_hand_out(monkeypatch, error, reason):
    def refuse(*_, **__):
        raise error("403 Client Error.", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(UserError, match=rf"'meta-llama/X'.*{reason}.*hf auth login"):
        resolve(ModelSection(name_or_path="meta-llama/X"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": 1}, "does not fit its base .*14 tensors differ, e.g. .*layers.1"),
        ({"hidden_size": 64}, "size mismatch"),
    ],
)
def test_an_adapter_of_another_base_is_refused(folder, tmp_path, change, reason):
    model, tokenizer = load_policy(ModelSection(name_or_path=str(folder)), seed=0)
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "adapter")
    AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE | change)).save_pretrained(tmp_path / "other")
    said = tmp_path / "adapter" / "adapter_config.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | {"base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(UserError, match=rf"model\.name_or_path = .*{reason}"):
        load_policy(ModelSection(name_or_path=str(tmp_path / "adapter")), seed=0)


@pytest.mark.parametrize(
    ("template", "reason"),
    [(None, "no chat template"), (CHATML.replace("add_generation_prompt", "false"), "no generation prompt")],
)
def test_templates_are_looked_at_before_the_weights(folder, tmp_path, monkeypatch, template, reason):
    shutil.copytree(folder, tmp_path / "model")
    tokenizer = byte_tokenizer(CHATML, SPECIAL[CHATML])
    tokenizer.chat_template = template
    (tmp_path / "model" / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("backtrack_mrt.assembly.load_model", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match=reason):
        assemble(load_config(["--model.name_or_path", str(tmp_path / "model")]).config)


def test_a_config_json_that_is_none(tmp_path):
    for content, reason in (("{", "cannot be read"), (json.dumps({"a": 1}), "names no model_type")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=reason):
            shape(ModelSection(name_or_path=str(tmp_path)))


def test_the_embedded_model_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "files", lambda package: tmp_path)
    assert "scripts/build_tiny.py" in refused("tiny")
