"""The grader against labelled cases and the answers of real data sets, where the shared folder is at hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backtrack_mrt.cli.commands.grade import GradeRow, grade_rows
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import Math
from backtrack_mrt.grading import MathGrader, Verdict, check_gold

SHARED = Path(__file__).parents[3] / "shared"
CASES = SHARED / "grader" / "cases.jsonl"
DATA = SHARED / "data"
# Labelled before words were told from mathematics: abc and cab are two texts now, as cat and act are.
OUTDATED = {"m072"}
WITHOUT_ANSWER = {"asdiv/1313"}  # its answer is "-"
ATTEMPTS = "gsm8k_model_attempts"

needs_cases = pytest.mark.skipif(not CASES.exists(), reason="the labelled cases are not here (../shared/grader)")
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the data sets are not here (../shared/data)")


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def by_row() -> Iterator[Grader]:
    with Math(forms="equivalent", workers=1) as made:
        yield made


def _rows(file: Path) -> list[dict[str, Any]]:
    with open(file, encoding="utf-8") as lines:  # not str.splitlines, which also splits at U+2028 inside a string
        return [json.loads(line) for line in lines]


@needs_cases
def test_labelled_cases(by_row: Grader) -> None:
    cases = _rows(CASES)
    start = time.monotonic()
    graded = list(grade_rows((GradeRow(case["gold"], case["answer"], case["form"]) for case in cases), by_row))
    assert len(graded) == len(cases)
    wrongly = [
        (case["id"], case["gold"][:50], case["answer"][:50], result["verdict"])
        for case, result in zip(cases, graded, strict=True)
        if case["expect"] != "no_crash" and case["expect"] != (result["verdict"] == Verdict.RIGHT)
    ]
    assert {case[0] for case in wrongly} <= OUTDATED
    assert time.monotonic() - start < 2 * len(cases)


@pytest.mark.parametrize("name", ["hard_cases.jsonl", "guard_cases.jsonl"])
def test_cases_of_public_reports(by_row: Grader, name: str) -> None:
    file = CASES.with_name(name)
    if not file.exists():
        pytest.skip(f"the labelled cases are not here (../shared/grader/{name})")
    cases = _rows(file)
    graded = grade_rows((GradeRow(case["gold"], case["answer"], case["form"]) for case in cases), by_row)
    wrongly = [
        (case["id"], case["gold"], case["answer"], result["verdict"])
        for case, result in zip(cases, graded, strict=True)
        if case["expect"] != (result["verdict"] == Verdict.RIGHT)
    ]
    assert not wrongly


@needs_data
def test_golds_equal_themselves_and_are_usable(grader: MathGrader) -> None:
    files = [file for file in sorted(DATA.glob("*.jsonl")) if file.stem != ATTEMPTS]
    assert files
    for file in files:
        rows = _rows(file)
        assert {row["id"] for row in rows if check_gold(row["answer"])} <= WITHOUT_ANSWER
        verdicts = grader.grade_many((row["answer"], f"${row['answer']}$.") for row in rows)
        failed = [row["id"] for row, verdict in zip(rows, verdicts, strict=True) if verdict is not Verdict.RIGHT]
        assert set(failed) <= WITHOUT_ANSWER, file.name


@needs_data
def test_labelled_attempts(grader: MathGrader) -> None:
    rows = _rows(DATA / f"{ATTEMPTS}.jsonl")
    verdicts = grader.grade_many((row["answer"], row["attempt"].rpartition("A:")[2]) for row in rows)
    wrongly = [row for row, verdict in zip(rows, verdicts, strict=True) if (verdict == "right") != row["is_correct"]]
    assert not wrongly


# Neighbours in a data set whose answers are the same, differently written.
SAME = {
    ("5", "x=5"), ("8", "K=8"), (r"25\%", "25"), ("120", r"120^\circ"), (r"21\text{ dogs}", "21"),
    (r"18 \text{ degrees}", "18"),
}  # fmt: skip


@pytest.mark.slow
@needs_data
def test_neighbouring_golds_are_not_mixed_up(grader: MathGrader) -> None:
    for file in sorted(DATA.glob("*.jsonl")):
        golds = [row["answer"] for row in _rows(file)]
        pairs = [(gold, other) for gold, other in pairwise(golds) if gold != other]
        verdicts = grader.grade_many(pairs)
        accepted = {pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is Verdict.RIGHT}
        assert accepted <= SAME, file.name
