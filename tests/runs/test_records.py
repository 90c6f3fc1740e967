"""Trajectories of other programs: what may be left out, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.evaluate import read_graded
from backtrack_mrt.runs.records import (
    append_trajectories,
    as_record,
    from_record,
    read_trajectories,
    write_trajectories,
)
from backtrack_mrt.runs.trace import render_trace
from backtrack_mrt.types import StopReason

PROBLEM = {"id": "7", "question": "What is 1 + 1?", "answer": "2"}
FOREIGN = {
    "problem": PROBLEM,
    "turns": [
        {"text": "So it is \\boxed{3}.", "tokens": 12},
        {"answer": "2.0", "token_ids": [5, 6, 7]},
    ],
}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_problem_and_turns_are_enough() -> None:
    trajectory = from_record(FOREIGN).trajectory
    first, second = trajectory.turns
    assert trajectory.answer == "2.0"
    assert trajectory.stop is StopReason.FINISHED
    assert math.isnan(trajectory.outcome)
    assert trajectory.sampled_tokens == 15
    assert first.parsed is not None
    assert (first.spec.phase, first.parsed.answer, set(first.completion.token_ids)) == ("turn", "3", {-1})
    assert (second.spec.phase, second.completion.token_ids) == ("turn", (5, 6, 7))
    assert all(math.isnan(value) for value in first.completion.logprobs)


def test_what_is_written_is_read_back() -> None:
    record = json.loads(json.dumps(as_record(from_record(FOREIGN))))
    assert json.loads(json.dumps(as_record(from_record(record)))) == record


def test_trajectories_are_appended_line_by_line(tmp_path: Path) -> None:
    """Also behind a last line that somebody left without its end."""
    path = tmp_path / "t.jsonl"
    append_trajectories(path, [from_record(FOREIGN)])
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    append_trajectories(path, [from_record(FOREIGN)] * 2)
    assert len(read_trajectories(path)) == 3


def test_ungraded_answers_are_graded(tmp_path: Path) -> None:
    (scored,) = read_graded(write(tmp_path / "t.jsonl", FOREIGN))
    assert [turn.right for turn in scored.trajectory.turns] == [False, True]
    assert (scored.trajectory.outcome, scored.trajectory.verdict) == (1.0, "right")


def test_a_tolerance_of_the_problem_counts(tmp_path: Path) -> None:
    strict = FOREIGN | {"problem": PROBLEM | {"answer": "2.01"}}
    loose = FOREIGN | {"problem": PROBLEM | {"answer": "2.01", "rel_tol": 0.01}}
    graded = read_graded(write(tmp_path / "t.jsonl", loose, strict))
    assert [scored.trajectory.outcome for scored in graded] == [1.0, 0.0]
    assert as_record(graded[0])["problem"]["rel_tol"] == 0.01


def test_a_given_outcome_is_kept(tmp_path: Path) -> None:
    (scored,) = read_graded(write(tmp_path / "t.jsonl", FOREIGN | {"outcome": 0.0, "verdict": "timeout"}))
    assert (scored.trajectory.outcome, scored.trajectory.verdict) == (0.0, "timeout")
    assert scored.trajectory.turns[0].right is False


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"turns": []}, "'problem' is missing"),
        ({"problem": PROBLEM, "turns": [{"text": "x"}]}, "'tokens' is missing"),
        ({"problem": PROBLEM, "turns": [{"tokens": 3}]}, "'text' is missing"),
        ({"problem": PROBLEM, "turns": [{"text": "x", "tokens": -1}]}, "turns[0].tokens = -1: input should be gre"),
        (
            {"problem": PROBLEM, "turns": [{"text": 7, "tokens": 3}]},
            "turns[0].text = 7: input should be a",
        ),
        (
            {"problem": PROBLEM, "turns": [{"text": "x", "token_ids": [1, "2"]}]},
            "token_ids[1] = '2': input",
        ),
        ({"problem": PROBLEM, "turns": [{"text": "x", "token_ids": [True]}]}, "token_ids[0] = True: input should be a"),
        ({"problem": PROBLEM, "turns": [{"text": "x", "tokens": 3, "right": "yes"}]}, "valid boolean"),
        (
            {"problem": PROBLEM | {"question": ["x"]}, "turns": []},
            "problem.question = ['x']: input",
        ),
        ({"problem": PROBLEM, "turns": [], "outcome": 10**400}, "valid number"),
        ({"problem": PROBLEM, "turns": [], "outcome": math.nan}, "not JSON: NaN, which is null there"),
        ({"problem": PROBLEM, "turns": [{"text": "x", "tokens": 1, "fields": {"a\nb": 1}}]}, r"fields['a\nb'] = 1"),
        ({"problem": PROBLEM, "turns": [], "given": 1}, "given = 1: there are 0 turns"),
        ({"problem": PROBLEM, "turns": [{"token_ids": [1], "logprobs": [1e308]}]}, "logprobs[0] = 1e+308"),
        ({"problem": PROBLEM, "turns": [{"token_ids": [1], "logprobs": [0.5]}]}, "logprobs[0] = 0.5"),
        ({"problem": PROBLEM, "turns": [{"text": "x", "tokens": 3}], "values": [-1e308, 0.5]}, "values[0] = -1e+308"),
        ({"problem": PROBLEM, "turns": [], "outcome": 1e308}, "outcome"),
        ({"problem": PROBLEM, "turns": [{"text": "x", "tokens": 3}], "values": [0.5]}, "one value more"),
        ({"problem": PROBLEM, "turns": [], "stop": "tired"}, "tired"),
        ({"problem": {"id": 1}, "turns": []}, "'problem.question' is missing"),
        ([1, 2], "valid dictionary"),
        (None, "valid dictionary"),
    ],
)
def test_a_line_that_is_no_trajectory_is_named(tmp_path: Path, record: Any, reason: str) -> None:
    with pytest.raises(UserError, match=r"t\.jsonl:2': not a trajectory: ") as refusal:
        read_trajectories(write(tmp_path / "t.jsonl", FOREIGN, record))
    assert reason in str(refusal.value)


def test_deep_nesting_is_no_trajectory(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.jsonl:1': not a trajectory: nested too deep"):
        read_trajectories(tmp_path / "t.jsonl")


def test_a_text_without_utf8_is_written_and_read_back(tmp_path: Path) -> None:
    scored = from_record(FOREIGN | {"problem": PROBLEM | {"question": "broken: \ud800"}})
    write_trajectories(tmp_path / "t.jsonl", [scored])
    (again,) = read_trajectories(tmp_path / "t.jsonl")
    assert again.trajectory.problem == scored.trajectory.problem


def test_a_trace_neither_steers_the_terminal_nor_forges_a_line() -> None:
    odd = "x\x1b[2J\nEnd: finished · answer 2 · right"
    problem = {"id": odd, "question": odd, "answer": odd, "source": odd}
    turn = {"text": odd, "answer": odd, "tokens": 1, "phase": odd, "violation": None}
    record = {"problem": problem, "turns": [turn, turn | {"violation": odd}], "verdict": odd, "answer": odd}
    trace = render_trace(from_record(record).trajectory)
    assert all(c.isprintable() or c == "\n" for c in trace)
    assert sum(line.startswith("End:") for line in trace.split("\n")) == 1
    assert sum(line.startswith("Turn ") for line in trace.split("\n")) == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_trajectories(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe4\n")
    with pytest.raises(UserError, match=r"latin\.jsonl:1': .*not valid UTF-8"):
        read_trajectories(tmp_path / "latin.jsonl")
    with pytest.raises(UserError, match="empty"):
        read_graded(write(tmp_path / "empty.jsonl"))
