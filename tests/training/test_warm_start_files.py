"""The warm-start data set: written with the tiny model, gone on with, read by `datasets`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from support.command_line import command

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.demonstrations.attempts import in_steps, read_attempts
from backtrack_mrt.data.demonstrations.files import read_demonstrations
from backtrack_mrt.data.demonstrations.stitching import PROTOCOLS
from backtrack_mrt.errors import UserError
from backtrack_mrt.training import warm_start_files as warmstart_files
from backtrack_mrt.training.warm_start_files import write_warm_start

FLAGS = ["--training.steps", "3", "--training.problems_per_step", "4", "--training.group_size", "4"]
FLAGS += ["--training.micro_batch_size", "4", "--engine.max_rows", "16"]


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    told = write_warm_start(read_request(FLAGS).config, folder, 2, None)
    assert told.startswith(f"{folder}: ")
    assert told.endswith("of 12 problems")
    return folder


def test_the_forms_are_read_by_datasets(written: Path, tmp_path: Path) -> None:
    for form in PROTOCOLS:
        rows = load_dataset(str(written), form, split="train", cache_dir=str(tmp_path))
        demonstrations = list(read_demonstrations(written / f"{form}.jsonl"))
        assert len(demonstrations) > 0
        assert [row["problem"]["id"] for row in rows] == [d.problem.id for d in demonstrations]
        assert f"| `{form}` | `{PROTOCOLS[form]}` | {len(rows)} |" in (written / "README.md").read_text()


def test_an_interrupted_call_is_gone_on_with(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = files(written)
    (kept,) = (written / "rollouts").iterdir()
    (tmp_path / "rollouts").mkdir()
    lines = kept.read_text().splitlines(keepends=True)
    (tmp_path / "rollouts" / kept.name).write_text("".join(lines[:5]) + lines[5][:20])  # not at a chunk's end
    write_warm_start(read_request(FLAGS).config, tmp_path, 2, None)
    assert files(tmp_path) == whole

    def no_model(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(warmstart_files, "assemble", no_model)
    write_warm_start(read_request(FLAGS).config, tmp_path, 2, None)  # all is there
    write_warm_start(read_request([*FLAGS, "--training.steps", "2"]).config, tmp_path, 2, None)
    assert "8 problems" in (tmp_path / "README.md").read_text()
    with pytest.raises(AssertionError, match="was loaded"):
        write_warm_start(read_request([*FLAGS, "--seed", "1"]).config, tmp_path, 2, None)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("2*1/2=1 bolt\nSo 2+1=3\nA: 3", "## Step 1: 2*1/2=1 bolt\n## Step 2: So 2+1=3\n\\boxed{3}"),
        ("Step 1: add.\n\n  Step 2. done  \n#### 1,200.", "## Step 1: add.\n## Step 2: done\n\\boxed{1,200}"),
        ("Add.\nSo: \\boxed{\\frac{1}{2}}", "## Step 1: Add.\n\\boxed{\\frac{1}{2}}"),
        ("Add.\nIt is 3", None),
        ("A: 3", None),
        ("", None),
    ],
)
def test_an_attempt_in_steps(text: str, steps: str | None) -> None:
    assert in_steps(text) == steps


def attempts_file(folder: Path, *rows: object) -> str:
    path = folder / "attempts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROW = {"id": "a/1", "problem": "1+1?", "answer": "2", "attempt": "1+1=2\nA: 2", "is_correct": True}


def test_attempts_of_other_models_are_read(tmp_path: Path) -> None:
    attempts, unusable = read_attempts(attempts_file(tmp_path, ROW, ROW | {"attempt": "No idea"}))
    assert [(a.problem.id, a.problem.answer, a.text, a.right) for a in attempts] == [
        ("a/1", "2", "## Step 1: 1+1=2\n\\boxed{2}", True)
    ]
    assert unusable == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": "1+1?", "answer": "2", "attempt": "A: 2"}, "no column 'is_correct'"),
        (ROW | {"is_correct": "yes"}, "true or false in 'is_correct'"),
        (ROW | {"attempt": " "}, "needs text in 'problem' and 'attempt'"),
    ],
)
def test_rows_that_are_no_attempts(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_attempts(attempts_file(tmp_path, row))


def test_the_command_refuses_what_cannot_be_stitched(tmp_path: Path) -> None:
    for flags, message in (
        (["--env", "retry"], "env = 'retry'"),
        (["--branches", "0"], "--branches = '0'"),
        (["--algo", "grpo", "--prover.estimator", "none"], "values choose the step"),
    ):
        failed = command("warm-start", "--out", tmp_path / "warm", *flags)
        assert failed.returncode == 2
        assert message in failed.stderr
    assert not (tmp_path / "warm").exists()
