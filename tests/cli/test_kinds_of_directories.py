"""A directory of another kind than the one that is wanted is told for what it is, with what to type in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.finished_runs import finished

from backtrack_mrt.cli.commands.train import noted, repeated
from backtrack_mrt.cli.main import main
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.directory import OWN
from backtrack_mrt.runs.kinds import COMMAND, kind_of, write_command

COMPARING = ["train", "--algo", "mrt-rl", "--compare", "grpo"]
GO_ON = r"Type: backtrack-mrt train --algo mrt-rl --compare grpo --output-dir cmp$"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison `cmp` of two runs, one of which has not finished; a model; a folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("cmp/grpo-seed0", "cmp/mrt-rl-seed0", "cmp/tuning/grpo-1-seed9"):
        finished(Path(name), "grpo" if "grpo" in name else "mrt-rl", 0, 0.6)
    Path("cmp/grpo-seed0/summary.json").unlink()
    Path("cmp/mrt-rl-seed0/model").mkdir()
    Path("cmp/mrt-rl-seed0/checkpoints/step_000003").mkdir()
    Path("cmp/mrt-rl-seed0/trajectories/evaluation_base.jsonl").write_text("")
    write_command(Path("cmp"), COMPARING)
    for name in ("empty", "model"):
        Path(name).mkdir()
    Path("model/config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --resume cmp", "--resume = 'cmp': it is a comparison, and no run. " + GO_ON),
        ("train --resume cmp/tuning", "a part of the comparison cmp, and no run. " + GO_ON),
        ("train --resume --output-dir cmp", GO_ON),
        ("train --resume cmp/mrt-rl-seed0/checkpoints", "Type: backtrack-mrt train --resume cmp/mrt-rl-seed0$"),
        ("train --resume cmp/mrt-rl-seed0/checkpoints/step_000003", "a checkpoint of the run cmp/mrt-rl-seed0, and"),
        ("train --resume model", "a model, and no run. Type: backtrack-mrt train --model.name_or_path model$"),
        ("train --resume empty", "an empty directory, and no run. Name the directory of a run"),
        ("train --resume nowhere", "no such directory. Name the directory of a run"),
        ("train --output-dir cmp", "that of a comparison, and this is one run"),
        ("train --compare grpo --output-dir cmp/mrt-rl-seed0", "--output-dir = .*: it is a run. Name a directory of"),
        ("train --model.name_or_path cmp/mrt-rl-seed0", "a run, and no model. Give cmp/mrt-rl-seed0/model.$"),
        ("train --data.train cmp/mrt-rl-seed0", "data.train = .*: it is a run, and no set of problems"),
        ("evaluate cmp", r"RUN\|MODEL = 'cmp': it is a comparison, and no model. Give cmp/mrt-rl-seed0.$"),
        (
            "evaluate cmp/mrt-rl-sed0",
            r"'cmp/mrt-rl-sed0': no such directory. Did you mean 'cmp/mrt-rl-seed0'\? Known: c",
        ),
        ("play cmp/tuning/x", r"RUN\|MODEL = .*: no such directory\. .*Known: cmp/tuning/grpo-1-seed9"),
        ("evaluate cmp/grpo-seed0", "no trained model yet. Let it finish: backtrack-mrt train --resume cmp/grpo-seed0"),
        ("evaluate --traces cmp/mrt-rl-seed0", "a run, and no file. Give a file, such as cmp/mrt-rl-seed0/traj"),
        ("export cmp/mrt-rl-seed0/checkpoints --out new", "a part of the run .* Give cmp/mrt-rl-seed0.$"),
        ("compare cmp", "it is a comparison, and no run. Give cmp/grpo-seed0 cmp/mrt-rl-seed0.$"),
        ("compare cmp/grpo-seed0", r"not finished .*\. Let it finish: backtrack-mrt train --resume cmp/grpo-seed0$"),
        ("compare cmp/mrt-rl-seed0 --out cmp/mrt-rl-seed0", "--out = .*: it is a run. Name a directory of its own"),
        ("report cmp", "Give cmp/grpo-seed0 cmp/mrt-rl-seed0.$"),
        ("audit model", "RUN = 'model': it is a model, and no run"),
        ("show cmp/mrt-rl-seed0", "Give a file, such as cmp/mrt-rl-seed0/trajectories/evaluation_base.jsonl"),
        ("warm-start --out cmp", "--out = 'cmp': it is a comparison. Name a directory of its own"),
    ],
)
def test_it_is_told_with_what_to_type(here: Path, words: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        main(words.split())


def test_a_comparison_without_its_command(here: Path) -> None:
    Path("cmp", COMMAND).write_text("[")
    Path("cmp/comparison.json").write_text("{}")
    told = "Repeat the command that began it, or go on with one: backtrack-mrt train --resume cmp/grpo-seed0$"
    with pytest.raises(UserError, match=told):
        main(["train", "--resume", "cmp"])


def test_the_folder_above_runs(here: Path) -> None:
    assert kind_of(Path("cmp/tuning").absolute()).go_on
    finished(here / "runs" / "mine", "grpo", 0, 0.6)
    assert kind_of(here / "runs").what == "a folder of runs"


def test_the_command_that_goes_on_starts_nothing_anew() -> None:
    flags = ["--compare", "grpo", "--overwrite", "--output-dir", "x", "--seeds", "0", "1", "--output_dir=y", "--tune"]
    assert repeated(flags) == ["--compare", "grpo", "--seeds", "0", "1", "--tune"]


def test_a_comparison_keeps_its_command(tmp_path: Path) -> None:
    with noted(tmp_path / "cmp", COMPARING):
        pass
    assert json.loads((tmp_path / "cmp" / COMMAND).read_text()) == COMPARING


def test_a_mistake_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError), noted(tmp_path / "cmp", COMPARING):
        raise UserError("data.train", "x", "no such file", "Name another.")
    assert not (tmp_path / "cmp").exists()


def test_overwriting_deletes_what_was_told_at_the_start() -> None:
    assert "alarms.json" in OWN
