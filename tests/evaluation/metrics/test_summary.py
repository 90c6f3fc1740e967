"""The whole summary, on trajectories that can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from support.hand_worked import ATTEMPT, CORRECTED, turn

from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.evaluation.metrics.summary import Cuts, Summary, summarise
from backtrack_mrt.runs.jsonl import plain_json
from backtrack_mrt.types import Parsed, Problem, Scored, StopReason

VALUES = np.array([0.1, 0.2, 0.2, 0.4, 0.8, 0.9])
LIMITS = Cuts(answers=2, most_answers=3, turns=5, budget=20, most_tokens=32)


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Six problems; of each a trajectory that corrects itself, and one that breaks the protocol after a right answer
    of 10 tokens with a turn of 4."""
    right = replace(ATTEMPT, parsed=Parsed(answer="2", steps=("a",)), reward=1.0)
    bad = turn(BacktrackPhase.DETECT, 4, None, "missing_verdict")
    broken = replace(
        CORRECTED, turns=(right, bad), stop=StopReason.VIOLATION, answer=None, outcome=0.0, verdict="unparsable"
    )
    scored = []
    for i in range(6):
        problem = Problem(f"p{i}", "q", "2")
        scored += [Scored(replace(CORRECTED, problem=problem), VALUES)]
        scored += [Scored(replace(broken, problem=problem), np.array([0.1, 0.5, 0.0]))]
    return summarise(scored, LIMITS, lambda problem, steps: 2, Backtrack())


def test_accuracy_and_changes(summary: Summary) -> None:
    assert summary.accuracy.mean == summary.accuracy_prolonged.mean == 0.5
    assert [e.mean for e in summary.acc_at_turn] == [0.5, 0.5, 0.5]
    assert (summary.wrong_to_right.mean, summary.right_to_wrong.mean, summary.gain.mean) == (0.5, 0.5, 0)
    assert [e.mean for e in summary.tokens_at_answer] == [10, (22 + 14) / 2, (25 + 14) / 2]
    assert summary.accuracy.n == 12
    assert summary.accuracy.low == summary.accuracy.high == 0.5  # all problems are alike


def test_votes(summary: Summary) -> None:
    assert [e.mean for e in summary.pass_at_k] == [0.5, 1]
    assert [e.mean for e in summary.maj_at_k] == [0.5, 1]  # the broken one does not vote


def test_backtracks_and_order(summary: Summary) -> None:
    assert {name: e.mean for name, e in summary.protocol.items()} == {"backtracks": 0.5, "backtracks_though_right": 0}
    assert summary.right_step.mean == 1
    assert summary.moves["backtrack"].progress.mean == pytest.approx(0.6)
    assert sum(e.mean for e in summary.moves["backtrack"].histogram) == 1
    assert summary.clean_turns.mean == 6 / 7
    assert summary.violations["missing_verdict"].mean == 0.5
    assert {name: e.mean for name, e in summary.stops.items()} == {
        "finished": 0.5,
        "violation": 0.5,
        "budget": 0,
        "turn_limit": 0,
    }


def test_regret(summary: Summary) -> None:
    assert list(summary.regret) == list(summary.regret_official) == ["5", "10", "20", "40"]
    assert summary.regret["20"] == summary.normalised_regret
    assert summary.regret["10"].mean == pytest.approx(1 - (0.15 + 0.3) / 2)
    assert summary.cumulative_regret.mean == pytest.approx(((5 - 1.7) + (5 - 0.6)) / 2)
    assert [e.mean for e in summary.value_at_turn[:2]] == pytest.approx([0.1, 0.35])
    assert [e.mean for e in summary.tokens_at_turn[:3]] == [0, 10, 14]


def test_curve(summary: Summary) -> None:
    curve = summary.curve
    assert curve.budgets[:2] == [0, 1]
    assert [curve.accuracy[c].mean for c in (9, 10, 13, 14, 22)] == [0, 0.5, 0.5, 0, 0.5]
    assert [curve.tokens[c].mean for c in (10, 14, 30)] == [10, 14, 19.5]
    assert curve.value[10].mean == pytest.approx(0.35)


def test_it_becomes_json(summary: Summary) -> None:
    text = json.dumps(plain_json(asdict(summary)), allow_nan=False)
    nothing = {"forced_rounds": {}, "linearised": [], "majority_at_turn": [], "regret_envelope": []}
    assert json.loads(text)["extras"] == nothing


def test_without_values_and_with_few_problems() -> None:
    summary = summarise([Scored(CORRECTED)], Cuts.found([Scored(CORRECTED)]))
    assert summary.accuracy.mean == 1
    assert "too few problems" in str(summary.accuracy)
    assert summary.normalised_regret.n == summary.regret["25"].n == summary.curve.value[3].n == 0
    assert str(summary.normalised_regret) == "–"


def test_limits_that_trajectories_reach() -> None:
    assert Cuts.found([Scored(CORRECTED)]) == Cuts(2, 2, 5, 25, 25)
