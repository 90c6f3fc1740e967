"""The card beside a trained model: valid for the hub, true, loadable as it says, safe against what it quotes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from support.short_runs import request

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config, ModelSection
from backtrack_mrt.data.loading import ProblemSets
from backtrack_mrt.evaluation.tables import RunResult
from backtrack_mrt.reports.model_card import code, hub_base, hub_datasets, model_card
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.records import read_trajectories, write_trajectories
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Problem, TokenLedger

pytestmark = pytest.mark.usefixtures("no_reports")

PROBLEMS = ProblemSets([Problem("a", "q", "1")] * 40, [Problem("b", "r", "2")] * 8, [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config, RunResult]:
    folder = tmp_path_factory.mktemp("runs") / "a`b"
    asked = request(folder, "--training.save_every", "2")
    return RunDir(folder), asked.config, train(asked)


def executed(card: str, folder: Path) -> dict[str, Any]:
    """The names that the card's Python leaves behind."""
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block.replace("PATH/OF/THIS/FOLDER", str(folder)), names)
    return names


def test_it_says_what_the_run_found(trained: tuple[RunDir, Config, RunResult]) -> None:
    run, _, result = trained
    card = ModelCard.load(run.model / "README.md")
    assert (card.data.library_name, card.data.base_model, card.data.datasets) == ("peft", None, None)
    assert {"backtrack_mrt", "mrt-rl", "lora"} <= set(card.data.tags or ())
    assert card.text.strip().startswith("# `mrt-rl` on `backtrack`, seed 0\n")
    before, after = result.base.accuracy, result.trained.accuracy
    assert f"| {before} | {after} | {after.mean - before.mean:+.3f} |" in card.text
    assert re.search(r"\| base \| trained .*\n.*\n.*\[0\.\d\d\d, ", card.text)
    assert f"| training | {result.ledgers['training'].sampled:,} |" in card.text
    assert "40 problems of `signs/base`, `signs/train`" in card.text
    assert "only 24" in card.text
    assert "    Problem signs/" in card.text
    assert "More Information Needed" not in card.content


def test_any_text_is_one_span_of_code() -> None:
    assert [code(text) for text in ("a`b", "`", "a|b", "a\nb", "")] == [
        "``a`b``",
        "`` ` ``",
        "`a\\|b`",
        "`a b`",
        "`  `",
    ]


def test_an_equal_run_leaves_the_same_bytes(trained: tuple[RunDir, Config, RunResult], tmp_path: Path) -> None:
    again = RunDir(tmp_path / "again")
    train(request(again.path, "--training.save_every", "2"))
    first, second = (
        {file.name: file.read_bytes() for file in run.model.iterdir() if file.is_file()} for run in (trained[0], again)
    )
    assert first == second


def test_its_code_loads_the_trained_model(trained: tuple[RunDir, Config, RunResult]) -> None:
    run, _, _ = trained
    loaded = executed((run.model / "README.md").read_text(encoding="utf-8"), run.model)
    saved = load_file(run.model / "adapter_model.safetensors")
    weights = dict(loaded["model"].named_parameters())
    for name, tensor in saved.items():
        assert torch.equal(weights[re.sub(r"\.weight$", ".default.weight", name)], tensor)
    ids = torch.tensor([loaded["tokenizer"]("1) 2 3 = 5;")["input_ids"]])
    assert loaded["model"].generate(input_ids=ids, max_new_tokens=2).shape[1] > ids.shape[1]


def test_checkpoints_have_one_without_results(trained: tuple[RunDir, Config, RunResult]) -> None:
    run, _, _ = trained
    cards = list(run.checkpoints.rglob("README.md"))
    assert any(card.parent.name == "step_000002" for card in cards)
    for card in cards:
        text = card.read_text(encoding="utf-8")
        assert "Not evaluated." in text
        assert "More Information Needed" not in text


def test_an_adapter_on_an_adapter_loads_as_it_says(trained: tuple[RunDir, Config, RunResult], tmp_path: Path) -> None:
    below, _, _ = trained
    train(request(tmp_path / "run", "--model.name_or_path", str(below.model)))
    folder = tmp_path / "run" / "model"
    loaded = executed((folder / "README.md").read_text(encoding="utf-8"), folder)
    assert "<eos>" in loaded["tokenizer"].get_vocab()


def test_whole_models_and_the_hub(tmp_path: Path) -> None:
    flags = ["--model.full_finetuning", "true", "--model.name_or_path", "OWNER/name-1.5B", "--algo", "grpo"]
    config = read_request([*flags, "--data.train", "gsm8k", "OWNER/set/sub:test[:9]", "x.jsonl", "signs/train"]).config
    card = model_card(RunDir(tmp_path), config, PROBLEMS, TokenLedger(sampled=1234))
    assert (card.data.library_name, card.data.base_model) == ("transformers", "OWNER/name-1.5B")
    assert card.data.datasets == ["openai/gsm8k", "OWNER/set"]
    assert "AutoModelForCausalLM" in card.text
    assert "| training | 1,234 | 0 | 0 |" in card.text
    assert "measured on nothing" in card.text
    assert hub_base(ModelSection(name_or_path=str(tmp_path))) is None
    traces = config.data.model_copy(update={"traces": ["t.jsonl"]})
    assert hub_datasets(config.model_copy(update={"algo": "sft", "data": traces})) == []


def test_what_it_quotes_cannot_mark_it_up(trained: tuple[RunDir, Config, RunResult], tmp_path: Path) -> None:
    run, config, result = trained
    scored = read_trajectories(run.trajectories / "evaluation_trained.jsonl")
    hostile = "```\n# owned\n<script>alert(1)</script>\n\x1b[31m\u202e"
    (tmp_path / "trajectories").mkdir()
    problem = replace(scored[0].trajectory.problem, question=hostile, source="\n# owned")
    write_trajectories(
        tmp_path / "trajectories" / "evaluation_trained.jsonl",
        [replace(scored[0], trajectory=replace(scored[0].trajectory, problem=problem))],
    )
    card = model_card(RunDir(tmp_path), config, PROBLEMS, TokenLedger(), result).text
    quoted = [line for line in card.splitlines() if "owned" in line or "script>" in line]
    assert quoted
    assert all(line.startswith("    ") for line in quoted)
    assert not set("\x1b\u202e") & set(card)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "`a`"),
        ("a`b", "``a`b``"),
        ("`a", "`` `a ``"),
        ("a|b\nc", "`a\\|b c`"),
        ("\u202e", "`⟨U+202E⟩`"),
        ("", "`  `"),
    ],
)
def test_names_are_code(text: str, shown: str) -> None:
    assert code(text) == shown
