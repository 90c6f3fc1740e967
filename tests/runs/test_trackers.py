"""Trackers get the names of metrics.jsonl: TensorBoard for real, the others with fakes in place of their packages."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from support.short_runs import request
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.records import from_record
from backtrack_mrt.runs.trackers import Trackers
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Scored


def config(run: Path, *names: str) -> Config:
    return read_request(["--output-dir", str(run), "--report-to", *names]).config


def scored(text: str, outcome: float) -> Scored:
    problem = {"id": f"p{outcome}", "question": "1 + 1?", "answer": "2"}
    return from_record({"problem": problem, "turns": [{"text": text, "tokens": 3}], "outcome": outcome})


class FakePackage(ModuleType):
    """What W&B and trackio have in common: `init` gives a run, which logs; `Table` is a table."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, origin="fake")
        self.begun: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.ended, self.broken = False, False

    def init(self, **settings: Any) -> FakePackage:
        self.begun = settings
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        if self.broken:
            raise ConnectionError("no network")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.ended = True

    class Table:
        def __init__(self, columns: list[str], data: list[list[Any]], dataframe: None = None) -> None:
            self.rows = [dict(zip(columns, row, strict=True)) for row in data]


@pytest.fixture(params=["wandb", "trackio"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakePackage:
    fake = FakePackage(request.param)
    AcceleratorState._reset_state(reset_partial_state=True)  # as in a program that has just begun
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return fake


@pytest.mark.parametrize("algo", ["mrt-rl", "star", "sft"])
def test_tensorboard_has_the_names_and_numbers_of_the_run(tmp_path: Path, algo: str) -> None:
    train(request(tmp_path, "--report-to", "tensorboard", algo=algo))
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = {
        (name, row["step"]): value
        for row in rows
        for name, value in row.items()
        if name != "step" and value is not None
    }
    for line in RunDir(tmp_path).evaluations():
        estimates = {name: found for name, found in line.items() if isinstance(found, dict) and "mean" in found}
        estimates |= {f"protocol/{name}": found for name, found in line["protocol"].items()}
        expected |= {
            (f"eval/{name}", line["step"]): found["mean"]
            for name, found in estimates.items()
            if found["mean"] is not None
        }
    assert {("eval/accuracy", 0), ("eval/protocol/backtracks", 0)} <= set(expected)
    shown = {(name, event.step): event.value for name in found.Tags()["scalars"] for event in found.Scalars(name)}
    assert shown == pytest.approx(expected, rel=1e-5)
    texts = [name for name in found.Tags()["tensors"] if "traces" in name]
    assert len(texts) == (algo != "sft")
    for name in texts:
        assert b"    Problem signs/" in found.Tensors(name)[0].tensor_proto.string_val[0]


def test_a_resumed_run_hides_the_steps_that_it_does_again(tmp_path: Path) -> None:
    for first in (1, 3):  # interrupted after step 4, resumed after step 2
        run, trackers = RunDir(tmp_path), Trackers(config(tmp_path, "tensorboard"))
        trackers.follow(run)
        for step in (first, first + 1, first + 2, first + 3):
            run.log(step, {"loss": 10.0 * first + step})
        trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 11), (2, 12), (3, 33), (4, 34), (5, 35), (6, 36)]


def test_the_others_get_the_same_and_a_table_of_traces(tmp_path: Path, package: FakePackage) -> None:
    (tmp_path / "run" / "trajectories").mkdir(parents=True)
    run, trackers = RunDir(tmp_path / "run"), Trackers(config(tmp_path / "run", package.__name__))
    trackers.follow(run)
    run.save_trajectories(1, [scored("fair\\boxed{2}", 1.0), scored("<b>bad</b>", 0.0)])
    run.save_trajectories(2, [scored("later", 1.0)])
    run.log(2, {"outcome": 0.5, "loss": float("nan")})
    trackers.close()
    assert (package.begun["project"], package.begun["name"], package.ended) == ("backtrack_mrt", "run", True)
    assert package.begun["config"]["algo"] == "mrt-rl"
    (first, table), (second, numbers) = package.logged
    assert (first, second, numbers) == (1, 2, {"outcome": 0.5})
    worst, best = table["traces"].rows
    assert (worst["problem"], best["problem"]) == ("p0.0", "p1.0")
    assert "\n      | <b>bad</b>\n" in worst["trace"]


def test_a_tracker_that_fails_does_not_end_the_run(
    tmp_path: Path, package: FakePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    run, trackers = RunDir(tmp_path), Trackers(config(tmp_path, package.__name__))
    trackers.follow(run)
    package.broken = True
    run.log(1, {"loss": 1.0})
    run.log(2, {"loss": 1.0})
    trackers.close()
    assert capsys.readouterr().err == f"report_to: {package.__name__} has failed and gets no more: no network\n"
    assert len(run.metrics()) == 2


def test_what_cannot_be_started_is_told(tmp_path: Path, package: FakePackage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("not\nlogged in")

    monkeypatch.setattr(package, "init", refuse)
    with pytest.raises(UserError, match="cannot be started: not logged in"):
        Trackers(config(tmp_path, package.__name__)).follow(RunDir(tmp_path))


def test_a_missing_package_is_told_before_anything_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own folder of runs is no package."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"report_to = 'wandb': its package is not installed\. pip install"):
        train(read_request(["--output-dir", str(tmp_path / "run"), "--report-to", "wandb"]))
    assert not (tmp_path / "run").exists()
