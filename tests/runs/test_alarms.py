"""Alarms: each is raised by what it is about, once, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.runs.alarms import RULES, WINDOW, Bell, Watch, alarms_of
from backtrack_mrt.runs.directory import RunDir

CALM = {
    "outcome": 0.6,
    "acc@turn_0": 0.4,
    "value/right_end": 0.99,
    "entropy": 0.5,
    "groups/without_signal": 0.2,
}
TURNS = {  # what turns a calm log into one with that alarm
    "diverged": {"outcome": 0.0, "acc@turn_0": 0.0},
    "final below first": {"acc@turn_0": 0.7},
    "forced answers drift": {"value/right_end": 0.9},
    "entropy collapses": {"entropy": 0.01},
    "groups without signal": {"groups/without_signal": 1.0},
    "nothing to learn": {"outcome": 1.0, "acc@turn_0": 1.0},
    "protocol broken": {"stop/violation": 0.9, "violation/missing_step": 0.9},
}


def log(*parts: dict[str, float]) -> list[dict[str, Any]]:
    rows = [CALM | part for part in parts for _ in range(WINDOW)]
    return [{"step": step} | row for step, row in enumerate(rows, 1)]


def test_every_rule_is_tried() -> None:
    assert set(TURNS) == set(RULES)
    assert alarms_of(log({}, {}, {})) == []


@pytest.mark.parametrize("name", TURNS)
def test_an_alarm_is_raised_once_and_says_what_to_do(name: str) -> None:
    (alarm,) = alarms_of(log({}, {}, TURNS[name], TURNS[name], {}, TURNS[name]))
    assert alarm.name == name
    assert 2 * WINDOW < alarm.step <= 3 * WINDOW
    assert "\n" not in alarm.told
    assert ". " in alarm.told  # what, and the remedy


@pytest.mark.parametrize("name", TURNS)
def test_what_is_not_logged_raises_nothing(name: str) -> None:
    metric = next(iter(TURNS[name]))
    rows = [{k: v for k, v in row.items() if k != metric} for row in log({}, {}, TURNS[name])]
    assert alarms_of(rows) == alarms_of([row | {metric: None} for row in rows]) == []


@pytest.mark.parametrize("metric", ["outcome", "eval/accuracy"])
def test_a_broken_policy_is_told_within_a_few_steps(metric: str) -> None:
    values = [0.9, 0.8, 0.0, 0.01, 0.0, 0.0]
    (alarm,) = alarms_of([{"step": step, metric: value} for step, value in enumerate(values)])
    assert (alarm.name, alarm.step) == ("diverged", 4 if metric == "outcome" else 2)
    assert "training.learning_rate" in alarm.told
    hard = [0.02, 0.05, 0.0, 0.0, 0.0]  # problems that are hardly ever solved
    assert alarms_of([{"step": step, metric: value} for step, value in enumerate(hard)]) == []


def test_what_is_nearly_lost_is_told_when_it_lasts() -> None:
    nearly = {"outcome": 0.14, "acc@turn_0": 0.1}
    lasting, passing = log({}, nearly), log({}, nearly)[: WINDOW + 3] + log({})
    (alarm,) = alarms_of(lasting)
    assert (alarm.name, alarm.step) == ("diverged", 2 * WINDOW)
    assert alarms_of(passing) == []


def test_held_out_results_count_at_once() -> None:
    line = {"step": 3, "name": "trained", "gain": {"mean": -0.1}}
    assert [(alarm.name, alarm.step) for alarm in alarms_of([], [line])] == [("final below first", 3)]
    assert alarms_of([], [line | {"gain": {"mean": 0.1}}]) == []


def test_a_resumed_run_does_not_say_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = log({}, {"entropy": 0.01})
    config = read_request(["--output-dir", str(tmp_path / "run")]).config
    run = RunDir.create(config)
    Bell(run)
    for row in rows:
        run.log(row["step"], {name: value for name, value in row.items() if name != "step"})
    said = capsys.readouterr().err
    assert said.count("alarm at step") == 1
    again = RunDir(run.path)
    Bell(again)
    again.log(len(rows) + 1, {"entropy": 0.01})
    assert capsys.readouterr().err == ""


def test_a_watch_sees_rows_one_by_one() -> None:
    watch, rows = Watch(), log({}, {}, {"entropy": 0.01})
    assert [alarm for row in rows for alarm in watch.see(row)] == alarms_of(rows)
