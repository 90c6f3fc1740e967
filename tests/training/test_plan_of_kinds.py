"""--dry-run of other models than Llama, of configs that make none, and of what cannot start."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from support.architectures import CACHED, PLAIN, REFUSED, SHAPE, random_model
from support.command_line import command
from transformers import AutoConfig, PretrainedConfig

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.dimensions import UNLIMITED, context_length
from backtrack_mrt.policy.files import first_line
from backtrack_mrt.policy.models import load_merged
from backtrack_mrt.training.plan import Plan, plan
from backtrack_mrt.training.roofline import device

pytestmark = pytest.mark.usefixtures("no_network")

KINDS = CACHED | PLAIN
OLD = Version(version("transformers")) < Version("5.19")
HELD = {"alibi too": UNLIMITED}  # tokens; the others hold as many as their shape says
SMALL = ["--protocol.token_budget", "64", "--engine.type", "hf"]
LLAMA = SHAPE | {"model_type": "llama"}
BIG = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 8, "num_attention_heads": 32}
MIXTRAL = BIG | {"model_type": "mixtral", "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2}


def written(folder: Path, said: dict[str, Any]) -> list[str]:
    """Flags for a model of which there is only a config.json."""
    (folder / "config.json").write_text(json.dumps(said))
    return ["--model.name_or_path", str(folder)]


def planned(folder: Path, said: dict[str, Any], *flags: str, on: str = "h100") -> Plan:
    return plan(read_request([*written(folder, said), *SMALL, *flags]).config, device(on))


def kept(config: PretrainedConfig) -> list[int]:
    """Numbers in the cache of a real model after 1 and 2 tokens."""
    model = random_model(config).eval()
    found = []
    for tokens in (1, 2):
        cache = model(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=True).past_key_values
        found.append(sum(x.numel() for layer in cache.layers for x in _floats(layer)))
    return found


def _floats(layer: Any) -> list[torch.Tensor]:
    held = [each for value in vars(layer).values() for each in (value.values() if isinstance(value, dict) else [value])]
    return [each for each in held if isinstance(each, torch.Tensor) and each.dim() > 1]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_planned_as_it_is(kind, tmp_path):
    if OLD and kind == "positions of the mask":
        pytest.skip("earlier versions of transformers cannot make it without its weights")
    config = KINDS[kind]
    found = planned(tmp_path, config.to_dict())
    model = found.sizes.model
    assert model.parameters == sum(weight.numel() for weight in random_model(config).parameters())
    assert found.context == context_length(config) == HELD.get(kind, getattr(config, "max_position_embeddings", 128))
    assert [model.cached + model.state, 2 * model.cached + model.state] == kept(config)
    assert found.fits
    assert "verdict           fits" in "\n".join(found.lines())


def test_a_model_around_a_language_model_is_planned_by_that(tmp_path):
    config = AutoConfig.for_model("gemma3")
    said = config.to_dict()
    said["text_config"] |= SHAPE | {"head_dim": 8, "max_position_embeddings": 300}
    said["text_config"].pop("layer_types", None)
    said["vision_config"] |= {"num_hidden_layers": 1}
    assert planned(tmp_path, said).context == 300


def test_a_token_meets_some_experts_and_a_step_reads_all(tmp_path):
    network = planned(tmp_path, MIXTRAL, "--model.dtype", "bfloat16").sizes.network
    expert, attention = 3 * 4096 * 14336, 4096 * (2 * 4096 + 2 * 1024)
    others = 8 * attention + 32000 * 4096
    routers = 8 * 8 * 4096
    assert network.matrix == pytest.approx(8 * 2 * expert + others, abs=routers)
    assert network.read == pytest.approx(2 * (8 * 8 * expert + others), abs=2 * routers)


@pytest.mark.skipif(OLD, reason="earlier versions of transformers keep the keys and values of all heads")
def test_latent_attention_keeps_its_latent_vectors(tmp_path):
    config = PLAIN["latent attention"]
    found = planned(tmp_path, config.to_dict())
    assert found.sizes.cache == 4 * config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)


BROKEN = {
    "context": (LLAMA | {"max_position_embeddings": None}, "max_position_embeddings"),
    "width": (LLAMA | {"intermediate_size": None}, "intermediate_size"),
    "layers": (LLAMA | {"num_hidden_layers": "2"}, "num_hidden_layers"),
    "no heads": (LLAMA | {"num_attention_heads": 0}, "num_attention_heads: 0"),
    "fewer than none": (LLAMA | {"num_hidden_layers": -1}, "num_hidden_layers: -1"),
    "unknown": (LLAMA | {"model_type": "llamaz"}, "knows no model_type 'llamaz'"),
    "own code": (LLAMA | {"model_type": "foo", "auto_map": {}}, "needs code that comes with the model"),
    "encoder": (next(iter(REFUSED.values())).to_dict(), "bert is not served"),
    "encoder and decoder": ({"model_type": "t5"}, "T5Config"),
    "packed": (
        LLAMA | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        r"packed already \(bitsandbytes, 4 bits\)",
    ),
}


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_what_makes_no_model_is_refused_in_a_line(name, auto, tmp_path):
    said, reason = BROKEN[name]
    flags = [*written(tmp_path, said), *(["--config", "auto", "--dry-run", "h100"] if auto else SMALL)]
    with pytest.raises(UserError, match=reason) as told:
        plan(read_request(flags).config, device("h100"))
    assert first_line(told.value) == str(told.value)
    assert len(str(told.value)) < 400


def test_packed_weights_are_refused_before_they_are_read(tmp_path):
    written(tmp_path, BROKEN["packed"][0])
    (tmp_path / "model.safetensors").write_bytes(b"")
    section = read_request(["--model.name_or_path", str(tmp_path)]).config.model
    with pytest.raises(UserError, match=BROKEN["packed"][1]):
        load_merged(section)


def test_a_config_is_derived_for_gpt2(tmp_path):
    flags = written(tmp_path, PLAIN["learnt positions"].to_dict() | {"n_positions": 1024})
    config = read_request([*flags, "--config", "auto", "--dry-run", "h100"]).config
    assert config.protocol.token_budget == 512
    assert plan(config, device("h100")).fits


def test_rows_end_where_the_engine_ends_them(tmp_path):
    with pytest.raises(UserError, match=r"token_budget = 64: engine\.context_length holds 50 tokens"):
        planned(tmp_path, LLAMA, "--engine.type", "vllm", "--engine.context_length", "50")
    assert planned(tmp_path, LLAMA, "--engine.type", "vllm", "--engine.context_length", "100").sizes.length == 100


def test_demonstrations_are_not_sampled(tmp_path):
    rl, star, sft = (planned(tmp_path, LLAMA, "--algo", algo).seconds for algo in ("grpo", "star", "sft"))
    assert (sft.rollout, sft.prover) == (0, 0)
    assert min(rl.rollout, star.rollout, sft.update) > 0


@pytest.fixture
def cut_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "8", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)


EIGHT = ["--config", "llama31_8b.yaml", "--engine.type", "hf", "--engine.max_rows", "8"]
SERVED = [*EIGHT[:2], "--engine.type", "vllm", "--engine.server", "http://host:8000"]
BASE, ADAPTER = 2 * 8_030_261_248, 4 * 83_886_080


@pytest.mark.usefixtures("cut_up")
@pytest.mark.parametrize(
    ("flags", "copy", "reference"),
    [
        (EIGHT, BASE + ADAPTER, 0),
        (SERVED, ADAPTER, 0),
        ([*EIGHT, "--model.full_finetuning", "true"], BASE, 0),
        ([*EIGHT, "--model.full_finetuning", "true", "--prover.policy", "reference"], BASE, BASE),
    ],
)
def test_each_process_has_the_whole_model_until_training_begins(flags, copy, reference):
    found = plan(read_request(flags).config, device("rtx4090"))
    own = BASE + (0 if "--model.full_finetuning" in flags else ADAPTER)
    assert (found.memory["whole copy"], found.memory.get("reference", 0)) == (copy, reference)
    assert found.peak >= own + copy + reference + found.memory["KV cache"]
    if flags == EIGHT:
        assert sum(found.memory.values()) < found.peak
        assert "each process has the whole model" in "\n".join(found.lines())
        assert not found.fits
        assert "quantization" not in found.verdict()


@pytest.mark.parametrize(
    ("processes", "flags", "reason"),
    [
        ("8", [], None),
        ("3", [], "cannot be shared evenly by 3 processes"),
        ("8", ["--engine.type", "vllm"], "opens a process group of its own"),
    ],
)
def test_a_plan_is_refused_like_the_run(processes, flags, reason, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", processes)
    before = dict(os.environ)
    done = command("train", *written(tmp_path, LLAMA), *SMALL, *flags, "--dry-run", "h100")
    assert done.returncode == (2 if reason else 0)
    assert (reason or "") in done.stderr
    assert dict(os.environ) == before  # the address at which processes meet is wanted by the run only


@pytest.mark.usefixtures("cut_up")
def test_packed_weights_that_would_be_cut_up_are_not_planned(tmp_path):
    done = command("train", *written(tmp_path, LLAMA), *SMALL, "--model.quantization", "nf4", "--dry-run", "h100")
    assert done.returncode == 2
    assert "FSDP cuts up weights" in done.stderr


@pytest.mark.parametrize("size", ["0GiB", "0.0 GB"])
def test_a_device_has_memory(size):
    with pytest.raises(UserError, match=f"--dry-run = '{size}': no memory"):
        device(size)


def test_a_device_that_the_framework_fills_has_nothing_left(tmp_path):
    assert "of 0.0 GiB that can be used of 1GiB" in planned(tmp_path, LLAMA, on="1GiB").verdict()
