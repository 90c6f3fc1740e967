"""`--config auto`: what is derived from a model's files and a device, and what stands above it. No weights are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backtrack_mrt.cli.api import load_config
from backtrack_mrt.cli.request import comparison_requests, read_request
from backtrack_mrt.config import Config
from backtrack_mrt.config.yaml_text import as_yaml
from backtrack_mrt.errors import UserError
from backtrack_mrt.training.plan import plan
from backtrack_mrt.training.roofline import device

pytestmark = pytest.mark.usefixtures("no_network")

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
HYBRID = PLAIN + "{% if enable_thinking is false %}<think>\n\n</think>{% endif %}"
R1 = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}<think>\n"
SHAPE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
}


def model(folder: Path, template: str | None = PLAIN, **shape: object) -> Path:
    """A folder with what a model says of itself."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SHAPE | shape))
    said = {} if template is None else {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def derived(folder: Path, *flags: str, on: str = "h100") -> Config:
    line = ["--config", "auto", "--model.name_or_path", str(folder), "--dry-run", on, *flags]
    return read_request(line).config


def test_a_large_gpu_gets_large_batches_and_every_choice_a_reason(tmp_path, capsys):
    config = derived(model(tmp_path / "mine"))
    assert (config.env, config.prompts, config.prover.estimator) == ("backtrack", "instruct", "auto")
    assert (config.model.dtype, config.engine.type, config.model.lora.r) == ("bfloat16", "vllm", 32)
    assert (config.training.rows, config.data.train) == (256, ["numina-math"])
    assert plan(config, device("h100")).fits
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("auto: ")]
    assert "llama, 1,235 M parameters, context 32,768, on h100" in told[0]
    assert all(": " in line.removeprefix("auto: ") for line in told[1:])
    for part in ("model.dtype bfloat16", "engine.type vllm", "training.micro_batch_size", "GiB that can be used"):
        assert any(part in line for line in told)
    again = derived(tmp_path / "mine")
    assert again == config
    assert "auto: " not in capsys.readouterr().err  # what was told is not told twice


@pytest.mark.parametrize("on", ["24GiB", "8GiB"])
def test_what_is_derived_fits(tmp_path, on):
    config = derived(model(tmp_path / "mine"), on=on)
    assert plan(config, device(on)).fits


def test_a_smaller_device_gets_smaller_settings(tmp_path):
    folder = model(tmp_path / "mine")
    large, small = (derived(folder, on=on) for on in ("h100", "8GiB"))
    assert small.training.micro_batch_size < large.training.micro_batch_size
    assert small.model.gradient_checkpointing


def test_what_does_not_fit_is_planned_but_not_run(tmp_path, monkeypatch):
    folder = model(tmp_path / "mine", num_hidden_layers=60)
    assert not plan(derived(folder, on="8GiB"), device("8GiB")).fits
    monkeypatch.setattr("backtrack_mrt.training.auto.this_device", lambda: device("8GiB"))
    with pytest.raises(UserError, match=r"does not fit 8GiB\. Take a larger device"):
        read_request(["--config", "auto", "--model.name_or_path", str(folder)])


@pytest.mark.parametrize(("template", "env"), [(PLAIN, "backtrack"), (HYBRID, "backtrack"), (R1, "open-ended")])
def test_the_template_says_which_protocol(tmp_path, template, env):
    assert derived(model(tmp_path / "inside", template)).env == env
    beside = model(tmp_path / "beside", None)
    (beside / "chat_template.jinja").write_text(template)
    assert derived(beside).env == env


def test_flags_and_files_stand_above(tmp_path, capsys):
    folder = model(tmp_path / "mine")
    (tmp_path / "mine.yaml").write_text("training: {group_size: 5, problems_per_step: 3}\ndata: {train_size: 9}\n")
    flags = ["--config", str(tmp_path / "mine.yaml"), "--env", "retry", "--model.dtype", "float32"]
    config = derived(folder, *flags, "--protocol.token_budget", "300")
    assert (config.env, config.model.dtype, config.protocol.token_budget) == ("retry", "float32", 300)
    assert config.training.rows == 15
    assert 15 % config.training.micro_batch_size == 0
    assert config.data.train == ["numina-math"]
    assert "dtype" not in capsys.readouterr().err  # told is what counts
    assert derived(folder, "--engine.server", "http://h:1").engine.type == "vllm"


def test_a_short_context_shortens_budgets(tmp_path):
    config = derived(model(tmp_path / "mine", max_position_embeddings=1024))
    assert (config.protocol.token_budget, config.protocol.attempt_tokens) == (512, 256)


def test_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    small = model(tmp_path / "mine", hidden_size=256, intermediate_size=1024)
    config = load_config("auto", model={"name_or_path": str(small)})
    assert (config.model.dtype, config.engine.type) == ("float32", "hf")
    assert (config.data.train, config.training.learning_rate) == (["mawps"], 3e-4)


def test_a_run_goes_on_as_it_was_trained(tmp_path):
    trained = load_config(env="single", prompts="terse", protocol={"token_budget": 90})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(as_yaml(trained.resolved()))
    config = derived(model(tmp_path / "run" / "model"))
    assert (config.env, config.prompts, config.data) == ("single", "terse", trained.data)
    assert config.protocol.token_budget == 90


def test_a_comparison_has_one_config(tmp_path, capsys):
    folder = model(tmp_path / "mine")
    line = ["--config", "auto", "--model.name_or_path", str(folder), "--dry-run", "h100", "--compare", "grpo"]
    first, second = comparison_requests(line)
    assert first.config.training == second.config.training
    assert [first.config.algo_label, second.config.algo_label] == ["mrt-rl", "grpo"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "no model is named"),
        (["--model.name_or_path", "tiny"], "tiny is embedded and has a config of its own"),
        (["--model.name_or_path", "tiny-countdown"], "tiny-countdown is embedded"),
        (["--model.name_or_path", "./nowhere"], "no such directory"),
        (["--model.name_or_path", "nobody/nothing"], "cannot be had from the hub"),
        (["--model.name_or_pat", "x"], "name_or_path"),
    ],
)
def test_without_a_model_it_is_refused_in_a_line(flags, reason):
    with pytest.raises(UserError, match=reason) as refused:
        read_request(["--config", "auto", *flags])
    assert "\n" not in str(refused.value)


def test_help_lists_it(capsys):
    with pytest.raises(SystemExit):
        read_request(["--config", "auto", "--help"])
    assert "auto            one derived from the model's files and the device" in capsys.readouterr().out
