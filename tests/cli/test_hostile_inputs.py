"""What no run can be made of is one line and an exit code, whatever is wrong with it."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt.config import LoraSection, ModelSection
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.policy.models import load_policy
from backtrack_mrt.runs import environment, processes

LONG = "x" * 300


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "4294967296"),
        ("--seed", "-1"),
        ("--output-dir", LONG),
        ("--model.name_or_path", LONG),
        ("--data.train", f"{LONG}.jsonl"),
        ("--config", LONG),
    ],
    ids=lambda flags: f"{flags[0]} {flags[1][:12]}",
)
def test_a_flag_is_one_line_and_exit_code_2(tmp_path: Path, flags: tuple[str, str]) -> None:
    done = command("train", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 1000


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK"])
@pytest.mark.parametrize("said", ["two", "", "-1", "1.5"])
def test_a_launchers_number_is_a_number(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.setenv(name, said)
    with pytest.raises(UserError, match=f"{name} = {said!r}: not a whole number"):
        processes.count(), processes.rank()


@pytest.mark.parametrize("said", ["http://[bad", "http://hub:99999", "http://hub:port"])
def test_an_address_of_the_hub_is_an_address(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", said)
    with pytest.raises(UserError, match=f"HF_ENDPOINT = {re.escape(repr(said))}: no address"):
        environment.prepare()


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": -1},
        {"rope_parameters": 7},
        {"model_type": ["llama"]},
        {"vocab_size": None},
    ],
    ids=str,
)
def test_a_config_that_makes_no_sense_is_one_line(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    said = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(said | change))
    with pytest.raises(UserError) as error:
        load_policy(ModelSection(name_or_path=str(broken)), 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model_type": 1' + "0" * 100_000 + "}"], ids=["deep", "digits"])
def test_hostile_json_is_one_line(folder: Path, tmp_path: Path, text: str) -> None:
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    (broken / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load_policy(ModelSection(name_or_path=str(broken)), 0)


def test_damaged_weights_are_one_line(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_policy(ModelSection(name_or_path=str(broken)), 0)


def test_adapters_name_their_modules_in_a_fixed_order() -> None:
    model, _ = load_policy(ModelSection(), 0)
    named = model.peft_config["default"].target_modules
    assert isinstance(named, list)
    assert named == sorted(named)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "norm", "nope"])
def test_modules_that_take_no_adapter_are_one_line(target: str) -> None:
    with pytest.raises(UserError, match=r"model\.lora\.targets") as error:
        load_policy(ModelSection(lora=LoraSection(targets=["q_proj", target] if target != "nope" else [target])), 0)
    assert "\n" not in str(error.value)


def test_a_terminal_without_unicode_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    with pytest.raises(SystemExit):
        run_main(lambda: print("½ → ✓"))
    assert out.buffer.getvalue() == b"? ? ?\n"
