"""Models by name, from a directory and from the hub; those that cannot be had."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import CHATML, RANDOM_LLAMA, SPECIAL, byte_tokenizer
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy import files as model_files
from backtrack_mrt.policy.files import find_model, shape
from backtrack_mrt.policy.models import frozen_copy, load_policy
from backtrack_mrt.rollouts.assembly import assemble

pytestmark = pytest.mark.usefixtures("no_network")


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
        assert shape(section)["hidden_size"] == RANDOM_LLAMA["hidden_size"]
    (tmp_path / "warm" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "./gone"}))
    with pytest.raises(UserError, match=r"model\.name_or_path = '\./gone': no such directory"):
        find_model(section)


def test_load_policy_in_full_and_its_frozen_copy(folder):
    model, _ = load_policy(ModelSection(name_or_path=str(folder), full_finetuning=True, dtype="bfloat16"), seed=0)
    assert all(p.requires_grad and p.dtype is torch.bfloat16 for p in model.parameters())
    reference = frozen_copy(model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not torch.equal(next(model.parameters()), next(reference.parameters()))
    assert not any(p.requires_grad for p in reference.parameters())


def test_the_architecture_must_be_the_model_s(folder):
    wrong = {"name_or_path": str(folder), "architecture": RANDOM_LLAMA | {"num_hidden_layers": 3}}
    with pytest.raises(UserError, match=r"model\.architecture\.num_hidden_layers = 3: the model's config\.json says 2"):
        load_policy(ModelSection.model_validate(wrong), 0)


def test_unknown_modules_for_the_adapter(folder):
    section = ModelSection.model_validate({"name_or_path": str(folder), "lora": {"targets": "w_proj"}})
    with pytest.raises(UserError, match=r"model\.lora\.targets = \['w_proj'\]: .*all-linear"):
        load_policy(section, 0)


def refused(name: str) -> str:
    with pytest.raises(UserError) as error:
        find_model(ModelSection(name_or_path=name))
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
    assert "hf download" not in refused("empty")  # it is no name of the hub
    fetch = refused("models/smollm2-135m-instruct")
    assert "scripts/fetch_smollm2.py" in fetch
    assert "hf download HuggingFaceTB/SmolLM2-135M-Instruct" in fetch  # a wheel brings no scripts
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
        find_model(ModelSection(name_or_path="meta-llama/X"))


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
    AutoModelForCausalLM.from_config(LlamaConfig(**RANDOM_LLAMA | change)).save_pretrained(tmp_path / "other")
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
    monkeypatch.setattr("backtrack_mrt.rollouts.assembly.load_model", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match=reason):
        assemble(read_request(["--model.name_or_path", str(tmp_path / "model")]).config)


def test_a_tokenizer_without_eos_and_pad_has_what_ends_a_message(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    tokenizer = byte_tokenizer(CHATML, SPECIAL[CHATML])
    end = tokenizer.eos_token
    tokenizer.add_special_tokens({"additional_special_tokens": [end]})
    tokenizer.eos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    parts = assemble(read_request(["--model.name_or_path", str(tmp_path / "model")]).config)
    assert parts.tokenizer.eos_token == parts.tokenizer.pad_token == end
    assert parts.model.config.pad_token_id == parts.dialogue.chat.eos_id


def test_a_config_json_that_is_none(tmp_path):
    for content, reason in (("{", "cannot be read"), (json.dumps({"a": 1}), "names no model_type")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=reason):
            shape(ModelSection(name_or_path=str(tmp_path)))


def test_the_embedded_model_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "files", lambda package: tmp_path)
    assert "scripts/tiny/build.py" in refused("tiny")


def test_a_model_that_drops_out_in_training_does_not(tmp_path):
    """The policy that is updated is the one that was sampled from."""
    tokenizer = byte_tokenizer(CHATML, SPECIAL[CHATML])
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = load_policy(ModelSection(name_or_path=str(tmp_path)), 0)
    ids = torch.arange(9)[None]
    assert torch.equal(model.train()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
