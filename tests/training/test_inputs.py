"""Whatever a run reads is noticed on resume if it was changed, by its name, and by nothing else's."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.short_runs import request

from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.inputs import INPUTS, check_inputs, save_inputs
from backtrack_mrt.training.finishing import finished_run
from backtrack_mrt.training.inputs import digests
from backtrack_mrt.training.train import train

pytestmark = pytest.mark.usefixtures("no_reports")

PROTOCOL = """
from backtrack_mrt.envs.retry import Retry
import {helper}
class Mine(Retry):
    pass
"""
GRADER = """
import backtrack_mrt as bt
class Paying(bt.Grader):
    def judge(self, problem, answer):
        return answer == problem.answer
"""


@pytest.fixture
def flags(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A run on files of one's own, all in `tmp_path`."""
    rows = [{"id": str(n), "question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(12)]
    for name, part in (("train", rows[:8]), ("eval", rows[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "traces.jsonl").write_text("{}\n")
    shutil.copytree(folder, tmp_path / "model")
    shutil.copytree(Path(__file__).parents[2] / "prompts" / "retry" / "terse", tmp_path / "prompts")
    helper = f"helper_of_{tmp_path.name}"
    (tmp_path / f"{helper}.py").write_text("DEPTH = 1\n")
    (tmp_path / "mine.py").write_text(PROTOCOL.format(helper=helper))
    (tmp_path / "paying.py").write_text(f"import {helper}_of_rewards\n{GRADER}")
    (tmp_path / f"{helper}_of_rewards.py").write_text("PAID = 1\n")
    (tmp_path / "valuing.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return (
        *("--data.train", str(tmp_path / "train.jsonl"), "--data.eval", str(tmp_path / "eval.jsonl")),
        *("--data.train_size", "null", "--data.eval_size", "null", "--data.traces", str(tmp_path / "traces.jsonl")),
        *("--grader", str(tmp_path / "paying.py"), "--prover.estimator", str(tmp_path / "valuing.py")),
        *("--model.name_or_path", str(tmp_path / "model"), "--env", str(tmp_path / "mine.py")),
        *("--prompts", str(tmp_path / "prompts")),
    )


def read(tmp_path: Path, flags: tuple[str, ...]) -> dict[str, str]:
    config = request(tmp_path / "run", *flags).config
    return digests(config, load_problem_sets(config.data))


def appended(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + text)


def other_weights(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


ROW = json.dumps({"id": "new", "question": "What is 7 · 7?", "answer": "49"}) + "\n"
CHANGES = {
    "data.train": appended("train.jsonl", ROW),
    "data.eval": appended("eval.jsonl", ROW),
    "data.traces": appended("traces.jsonl", "{}\n"),
    "prompts": appended("prompts/attempt.md", " Be brief."),
    "model": other_weights,
    "code of env": lambda folder: next(folder.glob("helper_of_*[0-9].py")).write_text("DEPTH = 2\n"),
    "code of grader": lambda folder: next(folder.glob("helper_of_*_of_rewards.py")).write_text("PAID = 2\n"),
    "code of prover.estimator": appended("valuing.py", "# another\n"),
}


def test_another_plug_in_beside_it_is_not_read(tmp_path: Path, flags: tuple[str, ...]) -> None:
    before = read(tmp_path, flags)
    other = tmp_path / "other.py"
    other.write_text(PROTOCOL.format(helper="json"))
    assert read(tmp_path, (*flags[:-4], "--env", str(other), *flags[-2:])) != before
    assert read(tmp_path, flags) == before


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_by_name(name: str, tmp_path: Path, flags: tuple[str, ...]) -> None:
    before = read(tmp_path, flags)
    assert read(tmp_path, flags) == before
    CHANGES[name](tmp_path)
    now = read(tmp_path, flags)
    assert {key for key in now if now[key] != before[key]} == {name}
    save_inputs(tmp_path, before)
    check_inputs(tmp_path, before, accept_changes=False)
    with pytest.raises(UserError, match=f"when it began: {name}\\. .*--accept-changes"):
        check_inputs(tmp_path, now, accept_changes=False)
    check_inputs(tmp_path, now, accept_changes=True)


def test_a_finished_run_has_the_golds_of_its_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests, which are no answers in mathematics."""
    rows = [{"prompt": f"Write f{n}.", "test": f"assert f{n}(1) == {n}", "entry_point": f"f{n}"} for n in range(12)]
    for name, part in (("train", rows[:8]), ("eval", rows[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    data = ("--data.train", str(tmp_path / "train.jsonl"), "--data.eval", str(tmp_path / "eval.jsonl"))
    sizes = ("--data.train_size", "null", "--data.eval_size", "null")
    asked = request(tmp_path / "run", "--grader", "python", *data, *sizes)
    RunDir.create(asked.config)
    save_inputs(tmp_path / "run", digests(asked.config, load_problem_sets(asked.config.data, 4, asked.config.grading)))
    finished = SimpleNamespace(config=asked.config, lost="")
    monkeypatch.setattr("backtrack_mrt.training.finishing.ended_run", lambda path: finished)
    assert finished_run(asked) is finished


def test_what_comes_with_the_program_has_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(tmp_path, ())
    protocol = sys.modules["backtrack_mrt.envs.backtrack"]
    changed = tmp_path / "backtrack.py"
    changed.write_text(Path(str(protocol.__file__)).read_text() + "\n# another release\n")
    monkeypatch.setattr(protocol, "__file__", str(changed))
    now = read(tmp_path, ())
    assert {key for key in now if now[key] != before[key]} == {"code of env"}


def test_a_run_is_not_resumed_on_other_data(
    tmp_path: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before the model is loaded."""

    def loading(config: object, *, training: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backtrack_mrt.training.train.assemble", loading)
    asked = request(tmp_path / "run", *flags, "--resume")
    RunDir.create(asked.config)
    save_inputs(tmp_path / "run", read(tmp_path, flags))
    CHANGES["data.train"](tmp_path)
    with pytest.raises(UserError, match=r"data\.train\. Put it back"):
        train(asked)
    with pytest.raises(KeyboardInterrupt):
        train(replace(asked, accept_changes=True))
    assert "although it reads something else now: data.train" in capsys.readouterr().out


def test_digests_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / INPUTS).write_text("{")
    with pytest.raises(UserError, match=r"inputs\.json.*Delete it"):
        check_inputs(tmp_path, {}, accept_changes=False)
