"""`backtrack-mrt audit`: what is graded again, what is told, and what a hang of bare math-verify costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import command

from backtrack_mrt.evaluation.audit import audit
from backtrack_mrt.grading import Limits, Verdict
from backtrack_mrt.runs.records import from_record

BOMB = r"10^{10^{10}}"  # bare math-verify with its alarm off never comes back from it


def record(gold: str, *answers: tuple[str, bool], outcome: float, verdict: str) -> dict[str, Any]:
    turns = [{"text": "x", "answer": answer, "tokens": 1, "right": right} for answer, right in answers]
    return {
        "problem": {"id": "p/\x1b[2J", "question": "?", "answer": gold},
        "turns": turns,
        "outcome": outcome,
        "verdict": verdict,
    }


RIGHT = record("1/2", ("0.25", False), ("0.5", True), outcome=1.0, verdict="right")
GULLIBLE = record("7", (r"7 \approx 8", True), outcome=1.0, verdict="right")  # as bare math-verify would have it


def test_verdicts_that_hold_and_those_that_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "trajectories"
    folder.mkdir(parents=True)
    (folder / "step_000001.jsonl").write_text(json.dumps(RIGHT) + "\n", encoding="utf-8")
    kept = command("audit", tmp_path / "run")
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "1 trajectories, 2 distinct answers" in kept.stdout
    assert "0 stored verdicts no longer hold" in kept.stdout
    (folder / "step_000002.jsonl").write_text(json.dumps(GULLIBLE) + "\n", encoding="utf-8")
    changed = command("audit", tmp_path / "run", folder / "step_000001.jsonl")
    assert changed.returncode == 1
    assert "3 trajectories, 3 distinct answers" in changed.stdout
    assert "3 stored verdicts no longer hold" in changed.stdout
    assert "verdict: right is now unparsable" in changed.stdout
    assert r"gold 7, answer 7 \approx 8: unparsable, bare right" in changed.stdout
    assert "\x1b" not in changed.stdout


def test_places_without_trajectories_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.jsonl"):
        refused = command("audit", place)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1


def test_a_hang_of_bare_math_verify_is_a_timeout() -> None:
    scored = [from_record(record("7", (BOMB, False), outcome=0.0, verdict="unparsable")), from_record(RIGHT)]
    found = audit(scored, workers=1, limits=Limits(cpu_s=0.3, wall_s=3.0))
    assert found.agreement[Verdict.UNPARSABLE, Verdict.TIMEOUT] == 1
    assert found.agreement[Verdict.RIGHT, Verdict.RIGHT] == 1
    assert not found.changes
    assert not found.disagreements


def test_ungraded_trajectories_have_nothing_to_change() -> None:
    ungraded = from_record({key: RIGHT[key] for key in ("problem", "turns")})
    assert not audit([ungraded], workers=1).changes


@pytest.mark.parametrize(("right", "outcome", "verdict"), [(True, 1.0, "right"), (False, 0.0, "unevaluated")])
def test_a_calculation_left_undone_holds_under_the_rule_it_was_graded_by(
    right: bool, outcome: float, verdict: str
) -> None:
    kept = from_record(record("2", ("16-14", right), outcome=outcome, verdict=verdict))
    mixed = from_record(record("2", ("16-14", right), outcome=outcome, verdict="wrong"))
    changes = audit([kept, mixed], workers=1).changes
    assert changes
    assert all(change.trajectory is mixed.trajectory for change in changes)
