"""What a launcher's file says of FSDP and DeepSpeed: refused where the run would fail, or do otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.launched_runs import several

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import processes
from backtrack_mrt.training import launch
from backtrack_mrt.training.launch import check_launch


@pytest.fixture
def cut_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets what FSDP 2 over so many processes tells them."""

    def tell(number: int) -> None:
        several(number, monkeypatch)
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_VERSION", "2")

    return tell


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--algorithm.answer_weight", "1"], r"algorithm\.answer_weight.*FSDP has it in pieces"),
        (["--model.quantization", "nf4"], r"model\.quantization.*ddp\.yaml"),
    ],
)
def test_what_needs_whole_weights_is_not_cut_up(number, flags, match, monkeypatch, cut_up):
    several(number, monkeypatch)
    config = read_request(flags).config
    check_launch(config)
    cut_up(number)
    with pytest.raises(UserError, match=match):
        check_launch(config)


def test_the_first_version_of_fsdp_is_refused(monkeypatch, cut_up):
    """The one that accelerate takes where its file does not say which."""
    config = read_request(["--algo", "sft"]).config
    cut_up(1)
    check_launch(config)
    monkeypatch.delenv("FSDP_VERSION")
    with pytest.raises(UserError, match=r"fsdp_version = '1': .* Set it to 2"):
        check_launch(config)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, r"fsdp_auto_wrap_policy = .* Set it to TRANSFORMER_BASED_WRAP"),
        ({"FSDP_AUTO_WRAP_POLICY": "NO_SUCH_WRAP"}, "fsdp_config: accelerate does not take it .*NO_SUCH_WRAP"),
        ({"FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"}, "fsdp_config: accelerate does not take it"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params = 'true': .* there is no GPU"),
        (
            {"FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer,NoSuchLayer"},
            r"fsdp_transformer_layer_cls_to_wrap = 'NoSuchLayer': tiny has .* then it is LlamaDecoderLayer\.",
        ),
    ],
)
def test_what_fsdp_would_not_do_with_the_model_is_refused(told, match, monkeypatch, cut_up):
    config = read_request(["--algo", "sft"]).config
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cut_up(2)
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer,LlamaMLP")
    check_launch(config)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=match):
        check_launch(config)


def test_layers_are_named_by_the_model_where_it_is_cut_up_again(monkeypatch, cut_up):
    cut_up(2)
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    several_times = read_request(["--algo", "star", "--algorithm.iterations", "2"]).config
    check_launch(several_times)
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer")
    check_launch(read_request(["--algo", "star", "--algorithm.iterations", "1"]).config)
    with pytest.raises(UserError, match="renames these classes in the first iteration"):
        check_launch(several_times)


@pytest.fixture
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config for two processes of DeepSpeed; each has 32 rows an update, in micro-batches of 16."""
    several(2, monkeypatch)
    monkeypatch.setattr(launch, "find_spec", lambda name: name)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    flags = ["--training.problems_per_step", "16", "--training.group_size", "4", "--training.micro_batch_size", "16"]
    return read_request(["--algo", "grpo", *flags]).config


@pytest.mark.parametrize(
    ("name", "right", "wrong", "match"),
    [
        ("GRADIENT_ACCUMULATION_STEPS", "2", "two", "steps = 'two': it is 2"),
        ("GRADIENT_ACCUMULATION_STEPS", "2", "3", r"steps = '3': it is 2 by .* change training\.micro_batch_size"),
        ("GRADIENT_CLIPPING", "1", "0.5", r"clipping = '0\.5': it is 1\.0 by .* change training\.max_grad_norm"),
    ],
)
def test_what_deepspeed_is_told_of_an_update_is_what_the_config_says(name, right, wrong, match, monkeypatch, deepspeed):
    for said in ("auto", right):
        monkeypatch.setenv(f"ACCELERATE_{name}", said)
        check_launch(deepspeed)
    monkeypatch.setenv(f"ACCELERATE_{name}", wrong)
    with pytest.raises(UserError, match=match):
        check_launch(deepspeed)


@pytest.mark.parametrize(("stage", "sharding"), [(2, None), (3, "ZeRO-3")])
def test_a_file_of_deepspeeds_own_says_what_is_cut_up(stage, sharding, tmp_path, monkeypatch, deepspeed):
    file = tmp_path / "ds.json"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    assert processes.sharding() == sharding
    file.write_text("[]")
    with pytest.raises(UserError, match=r"deepspeed_config_file = '.*ds\.json': not a file with DeepSpeed's settings"):
        check_launch(deepspeed)


AUTO = dict.fromkeys(("train_batch_size", "gradient_accumulation_steps", "gradient_clipping"), "auto")
SAID = {"train_micro_batch_size_per_gpu": 16, "gradient_accumulation_steps": 2, "gradient_clipping": 1.0}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            {"train_micro_batch_size_per_gpu": 1},
            r"gpu = 1: in deepspeed_config_file, .* it is 16\. Set it to .auto",
        ),
        ({"train_batch_size": 32}, "batch_size = 32: .* it is 64"),
        ({"gradient_accumulation_steps": 7}, "steps = 7: .* it is 2"),
        ({"gradient_accumulation_steps": None}, "steps = 1: .* it is 2"),
        ({"gradient_clipping": 3}, r"clipping = 3: .* it is 1\.0"),
        ({"gradient_clipping": None}, r"clipping = 0: .* it is 1\.0"),
        ({"train_batch_size": None}, "train_micro_batch_size_per_gpu: not in deepspeed_config_file"),
        ({"fp16": {"enabled": True}}, r"fp16\.enabled = True: .* model\.dtype is float32"),
        ({"bf16": {"enabled": True}}, r"bf16\.enabled = True: .* model\.dtype is float32"),
        ({"optimizer": {"type": "AdamW"}}, r"optimizer = \{.*Leave it out of the file"),
        ({"scheduler": {"type": "WarmupLR"}}, r"scheduler = \{.*Leave it out of the file"),
        ({"zero_optimization": {"stage": 7}}, "not a file with DeepSpeed's settings .*no stage 7"),
        ({"zero_optimization": None}, "not a file with DeepSpeed's settings .*zero_optimization"),
    ],
)
def test_a_file_of_deepspeeds_own_says_of_an_update_what_the_config_says(said, match, tmp_path, monkeypatch, deepspeed):
    file = tmp_path / "ds.json"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    right = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": False}, **AUTO}
    for fitting in (right, right | SAID):
        file.write_text(json.dumps(fitting))
        check_launch(deepspeed)
    file.write_text(json.dumps({name: value for name, value in (right | said).items() if value is not None}))
    with pytest.raises(UserError, match=match):
        check_launch(deepspeed)
