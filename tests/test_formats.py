"""docs/formats.md and docs/evaluation.md name what the code writes, and their examples are read."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from support.documents import ROOT, blocks, first_cells, section
from support.hand_worked import CORRECTED

from backtrack_mrt.cli.commands.grade import grade_rows, parse_rows
from backtrack_mrt.data.choices import OPTION_COLUMNS
from backtrack_mrt.data.demonstrations.files import read_demonstrations
from backtrack_mrt.data.problems import ANSWER_COLUMNS, CONTEXTS, QUESTION_COLUMNS, SOLUTIONS
from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.evaluation.metrics.logged import rollout_metrics
from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.evaluation.tables import RunResult
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.grading.verdict import Verdict
from backtrack_mrt.runs.directory import OWN
from backtrack_mrt.runs.progress import PARTS
from backtrack_mrt.runs.records import as_record, read_trajectories
from backtrack_mrt.types import Finish, Problem, Scored, StopReason

FORMATS, EVALUATION, PROBLEMS = "docs/formats.md", "docs/evaluation.md", "docs/problems.md"


def example(heading: str) -> str:
    """The JSON line under a heading."""
    text = section(FORMATS, heading)
    (line,) = [block for block in blocks(FORMATS, "json") if block in text]
    return line


def test_the_run_directory() -> None:
    told = {name.rstrip("/") for name in first_cells(section(FORMATS, "The run directory"))}
    assert set(OWN) - told == set()


def test_trajectories(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(example("Trajectories"))
    (scored,) = read_trajectories(path)
    record = json.loads(example("Trajectories"))
    assert json.loads(json.dumps(as_record(scored))) == record  # nothing is missing, nothing is made up
    named = first_cells(section(FORMATS, "Trajectories"))
    assert named == set(record) | set(record["turns"][0])


@pytest.mark.parametrize(
    ("document", "heading", "values"),
    [
        (FORMATS, "Trajectories", [*Verdict, *StopReason, *Finish]),
        (FORMATS, "Grades", [verdict for verdict in Verdict if verdict is not Verdict.UNEVALUATED]),  # is right there
        (PROBLEMS, "Sets of problems", [*QUESTION_COLUMNS, *ANSWER_COLUMNS, *SOLUTIONS, *CONTEXTS, *OPTION_COLUMNS]),
    ],
)
def test_what_may_stand_there_is_listed_whole(document: str, heading: str, values: list[str]) -> None:
    told = section(document, heading)
    assert [value for value in values if f"`{value}`" not in told] == []


def test_grades() -> None:
    with MATH.opened() as grader:
        (graded,) = grade_rows(parse_rows([example("Grades")], FORMATS), grader)
    assert graded["verdict"] == "right"
    assert [name for name in graded if f"`{name}`" not in section(FORMATS, "Grades")] == []


def test_trajectories_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(example("Trajectories of other programs"))
    (scored,) = read_trajectories(path)
    assert (scored.trajectory.answer, scored.trajectory.sampled_tokens) == ("116", 1242)


def test_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(example("Demonstrations"))
    (demonstration,) = read_demonstrations(path)
    assert [len(spans) for spans in demonstration.turns] == [1, 1, 1, 1, 1]
    assert not demonstration.turns[0][0].learn


def test_metrics_of_rollouts() -> None:
    scored = Scored(CORRECTED, np.linspace(0, 1, len(CORRECTED.turns) + 1))
    canary = Scored(CORRECTED.__class__(Problem("c", "q", "9", canary=True), (1,), outcome=0.0, verdict="wrong"))
    told = first_cells(section(FORMATS, "metrics.jsonl"))
    logged = {re.split("turn_|phase_", name)[0] for name in rollout_metrics([scored, canary])}
    assert logged <= {re.split("turn_|phase_", name)[0] for name in told}


def test_metrics_of_updates() -> None:
    told = first_cells(section(FORMATS, "metrics.jsonl"))
    logged = re.findall(r'_tell\(\{"([^"]+)"', (ROOT / "backtrack_mrt/training/rl.py").read_text())
    assert len(logged) > 3
    assert {*logged, *(f"time/{part}" for part in PARTS)} <= told


def test_a_file_of_a_run_is_told_once() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", section(FORMATS, "The run directory"), re.MULTILINE)
    assert len(rows) == len({*rows})


@pytest.mark.parametrize("kind", [Estimate, RunResult, Summary])
def test_results(kind: type) -> None:
    inner = {"progress_edges", "budget", "ledgers"}  # beside the number that they belong to
    told = section(FORMATS, "summary.json") + section(EVALUATION, "What is reported")
    assert [f.name for f in fields(kind) if f.name not in inner and f.name not in told] == []
