"""Exported models: plain transformers folders that compute what the trained model did, with no path in them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from support.command_line import command
from transformers import AutoModelForCausalLM, AutoTokenizer

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import ModelSection
from backtrack_mrt.policy.models import load_policy
from backtrack_mrt.reports.model_card import ADAPTER, WHOLE, without_paths

pytestmark = pytest.mark.usefixtures("no_network")
IDS = torch.tensor([[5, 6, 7]])
CARD = f"""\
---
base_model: /home/me/models/base
library_name: peft
tags: [backtrack_mrt, lora]
---

# `run`

A LoRA adapter of `/home/me/models/base`, trained on `/data/sets/mine.jsonl` (see https://example.org/a/b), 1/2 of it.

```python
{ADAPTER}```
"""


def trained(base: str, out: Path, full: bool = False) -> torch.Tensor:
    """Save a policy made of `base`, as if trained, at `out`; returns its logits."""
    model, tokenizer = load_policy(ModelSection(name_or_path=base, full_finetuning=full), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or full:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        logits = model(IDS).logits
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return logits


def run_of(model: Path, base: str, full: bool) -> Path:
    """A run directory with that trained model."""
    config = read_request(["--model.name_or_path", base, "--model.full_finetuning", str(full).lower()]).config
    (model.parent / "config.yaml").write_text(yaml.safe_dump(config.resolved()))
    return model.parent


def exported(what: object, out: Path, *flags: str) -> Path:
    done = command("export", what, "--out", out, *flags)
    assert done.returncode == 0, done.stderr
    return out


def assert_plain(out: Path, expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads without peft, computes `expected`, and no text file in it names a place of this machine."""
    monkeypatch.setitem(sys.modules, "peft", None)
    model = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert model.config.use_cache
    assert not list(out.glob("adapter*"))
    for file in (file for file in out.rglob("*") if file.suffix != ".safetensors"):
        text = file.read_text()
        assert without_paths(text) == text, file.name
        assert str(out.parent) not in text


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("base", ["tiny", "folder"])
@pytest.mark.parametrize("named", ["run", "model"])
def test_a_run_and_its_model(
    base: str, full: bool, named: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(folder) if base == "folder" else base
    logits = trained(source, tmp_path / "run" / "model", full)
    (tmp_path / "run" / "model" / "README.md").write_text(CARD)
    run = run_of(tmp_path / "run" / "model", source, full)
    out = exported(run if named == "run" else run / "model", tmp_path / "out")
    assert_plain(out, logits, monkeypatch)


def test_an_adapter_on_an_adapter_without_a_tokenizer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(str(folder), tmp_path / "warm")
    logits = trained(str(tmp_path / "warm"), tmp_path / "warmer")
    for file in (tmp_path / "warmer").iterdir():
        if not file.name.startswith("adapter"):
            file.unlink()
    assert_plain(exported(tmp_path / "warmer", tmp_path / "out"), logits, monkeypatch)
    assert (tmp_path / "out" / "README.md").read_text().count("AutoModelForCausalLM") > 0


def test_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_policy(ModelSection(full_finetuning=True), seed=0)
    with torch.no_grad():
        logits = model(IDS).logits
    assert_plain(exported("tiny", tmp_path / "out"), logits, monkeypatch)
    assert "# The embedded base model" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_is_adjusted(folder: Path, tmp_path: Path) -> None:
    trained(str(folder), tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(CARD)
    card = ModelCard.load(exported(tmp_path / "model", tmp_path / "out") / "README.md")
    assert card.data.to_dict() == {"library_name": "transformers", "tags": ["backtrack_mrt"]}
    assert "A LoRA adapter, merged into `base`, trained on `mine.jsonl` (see https://example.org/a/b), 1/2" in card.text
    assert WHOLE in card.text
    assert "peft" not in card.text


def test_weights_in_another_type(tmp_path: Path) -> None:
    out = exported("tiny", tmp_path / "out", "--dtype", "bfloat16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_folders_in_use_are_not_touched(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    for what, out, flags, told in (
        (own, tmp_path / "photos", [], "it exists already"),
        (own, tmp_path / "photos", ["--overwrite"], "it holds no model"),
        (own, own, ["--overwrite"], "the model is read from"),
        (own, own / "inside", [], "the model is read from"),
        (own, tmp_path, ["--overwrite"], "the model is read from"),
        (tmp_path / "run", tmp_path / "new", [], "no trained model yet"),
        (tmp_path / "none", tmp_path / "new", [], "no such directory"),
        (own, tmp_path / "new", ["--dtype", "int3"], "int3"),
    ):
        refused = command("export", what, "--out", out, *flags)
        assert refused.returncode == 2
        assert told in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    exported(own, tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("")
    exported("tiny", tmp_path / "out", "--overwrite")
    assert not (tmp_path / "out" / "old.txt").exists()


def test_paths_are_told_from_other_text() -> None:
    kept = "https://a.org/b/c, and/or, 1/2, a / b, ./here/now, ../up/there, $HOME/x/y, </think>"
    assert without_paths(kept) == kept
    assert without_paths("`/home/me/x.jsonl`, ~/models/base (/a/b/)") == "`x.jsonl`, base (b)"
    assert not re.search("/srv", without_paths("in /srv", ["/srv"]))
