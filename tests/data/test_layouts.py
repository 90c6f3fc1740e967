"""Rows as well-known data sets have them, written by hand: what each becomes by the flags that the documents name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backtrack_mrt.config import SetSection
from backtrack_mrt.data.problems import SetSource, notes_on, read_problems
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.choice import MultipleChoice
from backtrack_mrt.graders.exact import Exact
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.graders.number import Number
from backtrack_mrt.graders.python import Python
from backtrack_mrt.grading.verdict import Verdict
from backtrack_mrt.types import Problem

ANIMALS = ["a cat", "a dog", "an eel", "a fox"]
SHOWN = "Which barks?\nA) a cat\nB) a dog\nC) an eel\nD) a fox"


def read(folder: Path, row: dict[str, Any], grader: Grader = MATH, **entry: Any) -> Problem:
    """The one problem of a file with this row."""
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    section = SetSection.model_validate(entry | {"path": str(folder / "rows.jsonl")})
    (problem,) = read_problems(SetSource("data.train", "rows", "rows", section, grader=grader)).problems
    return problem


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"question": "Which barks?", "subject": "x", "choices": ANIMALS, "answer": 1}, id="MMLU"),
        pytest.param(
            {"question": "Which barks?", "options": ANIMALS, "answer": "B", "answer_index": 1, "cot_content": ""},
            id="MMLU-Pro",
        ),
        pytest.param(
            {"question": "Which barks?", "choices": {"text": ANIMALS, "label": [*"ABCD"]}, "answerKey": "B"}, id="ARC"
        ),
        pytest.param(
            {"question": "Which barks?", "choices": {"text": ANIMALS, "label": [*"1234"]}, "answerKey": "2"},
            id="ARC with numbers",
        ),
        pytest.param(
            {"question_stem": "Which barks?", "choices": {"text": ANIMALS, "label": [*"ABCD"]}, "answerKey": "B"},
            id="OpenBookQA",
        ),
        pytest.param(
            {"question": "Which barks?", "options": [f"{a}){t}" for a, t in zip("ABCD", ANIMALS, strict=True)]}
            | {"rationale": "Dogs do.", "correct": "B"},
            id="AQuA",
        ),
        pytest.param(
            {"question": "Which barks?", "options": dict(zip("ABCD", ANIMALS, strict=True))}
            | {"answer": "a dog", "answer_idx": "B"},
            id="MedQA",
        ),
        pytest.param({"question": "Which barks?", "choices": ANIMALS, "answer": "a dog"}, id="the text"),
        pytest.param({"question": "Which barks?", "choices": ANIMALS, "label": "1"}, id="a number as text"),
        pytest.param({"question": "Which barks?", "choices": json.dumps(ANIMALS), "answer": "(b)"}, id="JSON"),
        pytest.param({"question": "Which barks?", "choices": str(ANIMALS), "answer": 1.0}, id="Python's list"),
    ],
)
@pytest.mark.parametrize("grader", [MATH, MultipleChoice(), Exact()], ids=["math", "choice", "exact"])
def test_a_multiple_choice_shows_its_options(tmp_path: Path, row: dict[str, Any], grader: Grader) -> None:
    problem = read(tmp_path, row, grader)
    assert (problem.question, problem.answer) == (SHOWN, "B")
    assert grader.grade(problem, "B").verdict is Verdict.RIGHT
    assert grader.grade(problem, "C").verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("row", "entry", "gold"),
    [
        pytest.param(
            {"ctx": "A dog", "activity_label": "Pets", "endings": ["flies.", "barks.", "reads."], "label": "1"},
            {"question": "ctx"},
            "barks.",
            id="HellaSwag",
        ),
        pytest.param(
            {"input": "Which barks?", "A": "a cat", "B": "a dog", "C": "an eel", "D": "a fox", "target": "B"},
            {"question": "input", "choices": ["A", "B", "C", "D"], "answer": "target"},
            "a dog",
            id="MMLU in columns",
        ),
        pytest.param(
            {"sentence": "The _ barks.", "option1": "cat", "option2": "dog", "answer": "2"},
            {"question": "sentence", "choices": ["option1", "option2"], "first_choice": 1},
            "dog",
            id="WinoGrande",
        ),
        pytest.param(
            {"Question": "Which barks?", "Correct Answer": "a dog", "Incorrect Answer 1": "a cat"}
            | {"Incorrect Answer 2": "an eel", "Incorrect Answer 3": "a fox"},
            {"choices": ["Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3))], "answer": "Correct Answer"},
            "a dog",
            id="GPQA",
        ),
        pytest.param(
            {"question": "Which barks?", "mc1_targets": {"choices": ["a dog", "a cat", "an eel"], "labels": [1, 0, 0]}},
            {"choices": "mc1_targets.choices", "answer": "mc1_targets.labels"},
            "a dog",
            id="TruthfulQA",
        ),
    ],
)
def test_columns_of_their_own_are_named(tmp_path: Path, row: dict[str, Any], entry: dict[str, Any], gold: str) -> None:
    problem = read(tmp_path, row, MultipleChoice(), **entry)
    assert f"\n{problem.answer}) {gold}" in problem.question
    assert MultipleChoice().grade(problem, gold).verdict is Verdict.RIGHT
    with pytest.raises(UserError, match=r"no column .*question|no column .*answer|refused|no gold answer"):
        read(tmp_path, {name: value for name, value in row.items() if name != "label"}, MultipleChoice())


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"opa": "a cat", "opb": "a dog", "opc": "an eel", "opd": "a fox", "cop": 1}, id="MedMCQA"),
        pytest.param({"A": "a cat", "B": "a dog", "C": "an eel", "D": "a fox", "answer": "B"}, id="C-Eval"),
        pytest.param({"option_a": "a cat", "option_b": "a dog", "option_c": "", "answer": "b"}, id="a blank one"),
        pytest.param({"sol1": "a cat", "sol2": "a dog", "label": 1}, id="PIQA"),
        pytest.param({"answerA": "a cat", "answerB": "a dog", "answerC": "an eel", "label": "B"}, id="SocialIQA"),
        pytest.param({"ending0": "a cat", "ending1": "a dog", "ending2": "an eel", "label": 1}, id="SWAG"),
    ],
)
def test_columns_of_their_own_are_found_by_names_that_go_on(tmp_path: Path, row: dict[str, Any]) -> None:
    problem = read(tmp_path, {"question": "Which barks?"} | row, MultipleChoice())
    assert problem.question.startswith("Which barks?\nA) a cat\nB) a dog")
    assert problem.answer == "B"


def test_columns_numbered_from_1_are_asked_about(tmp_path: Path) -> None:
    row = {"question": "Which barks?", "option1": "a cat", "option2": "a dog", "answer": "2"}
    with pytest.raises(
        UserError, match=r"options in option1 and option2.*choices: \[option1, option2\].*first_choice: 1"
    ):
        read(tmp_path, row)
    problem = read(tmp_path, row, choices=["option1", "option2"], first_choice=1)
    assert problem.answer == "B"


def test_columns_that_only_look_like_options(tmp_path: Path) -> None:
    row = {"question": "1 + 2?", "A": "1", "B": "2", "answer": "3"}
    assert read(tmp_path, row, choices=[]).question == "1 + 2?"
    assert read(tmp_path, {"question": "1 + 2?", "a": 1, "b": 2, "answer": "3"}).question == "1 + 2?"
    with pytest.raises(UserError, match="is no list of options"):
        read(tmp_path, {"question": "Which?", "A": "a cat", "B": None, "C": "a dog", "answer": "C"}, MultipleChoice())


def test_letters_in_the_question_are_no_options(tmp_path: Path) -> None:
    """Those at the beginnings of its last lines are."""
    row = {"question": "A. Smith takes vitamin A. B. Jones takes iron.\nWho takes it?", "choices": ["Smith", "Jones"]}
    problem = read(tmp_path, row | {"answer": 0}, MultipleChoice())
    assert MultipleChoice().grade(problem, "Smith").verdict is Verdict.RIGHT
    assert MultipleChoice().grade(problem, "A) Smith").verdict is Verdict.RIGHT
    assert MultipleChoice().grade(problem, "Jones").verdict is Verdict.WRONG


def test_where_rows_have_no_order_the_right_one_is_not_always_first(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "right": "a dog", "wrong": "a cat"} for n in range(20)]
    golds = [read(tmp_path, row, choices=["right", "wrong"], answer="right").answer for row in rows]
    assert {"A", "B"} == set(golds)
    assert golds == [read(tmp_path, row, choices=["right", "wrong"], answer="right").answer for row in rows]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"answer": 4}, r"counts its options from 1, it seems.*first_choice: 1"),
        ({"answer": -1}, r"answer is none of its 4 options: -1"),
        ({"answer": "E"}, r"answer is none of its 4 options: E"),
        ({"answer": ""}, r"answer names none of its options"),
        ({"answer": None}, r"answer names none of its options"),
        ({"answer": [1, 1, 0, 0]}, r"answer marks no single one"),
        ({"choices": ["a cat"]}, r"choices has 1 options"),
        ({"choices": [["a"], ["b"]]}, r"choices is no list of options"),
        ({"choices": ["a cat", ""]}, r"choices has 1 options"),
        ({"choices": ["same", "same"], "answer": "same"}, r"answer is none of its 2 options: same"),
    ],
)
def test_what_is_no_choice_is_told_by_its_column(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(tmp_path, {"question": "Which barks?", "choices": ANIMALS, "answer": 1} | changed)


def test_a_row_without_options_is_an_open_question(tmp_path: Path) -> None:
    for empty in ([], None):
        problem = read(tmp_path, {"question": "2 + 2?", "options": empty, "answer": "4"})
        assert (problem.question, problem.answer) == ("2 + 2?", "4")


def test_a_grader_without_letters_gets_the_text(tmp_path: Path) -> None:
    assert read(tmp_path, {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}, Number()).answer == "4"


def test_true_and_false_are_yes_and_no(tmp_path: Path) -> None:
    """BoolQ; its passage is not part of the question unless it is named."""
    row = {"question": "do dogs bark", "passage": "Dogs bark.", "answer": True}
    assert read(tmp_path, row, Exact()).answer == "yes"
    assert read(tmp_path, row, Exact(), question=["passage", "question"]).question == "Dogs bark. do dogs bark"
    source = SetSource("data.train", "boolq", "boolq", SetSection(path=[str(tmp_path / "rows.jsonl")]), grader=Exact())
    assert notes_on(source, read_problems(source)) == [
        "data.train = 'boolq': the column 'passage' is not shown to the model: data.sets can add it to the question"
    ]


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "canonical_solution": "    return a + b\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n",
    "entry_point": "add",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function add(a, b).",
    "code": "def add(a, b): return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert math.isclose(add(0.1, 0.2), 0.3)"],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}
SANITIZED = {
    "task_id": 2,
    "prompt": "Write a function add(a, b).",
    "code": "def add(a, b): return a + b",
    "test_imports": ["import math"],
    "test_list": MBPP["test_list"],
}
KODCODE = {
    "question": "Write a function add(a, b).",
    "solution": "def add(a, b): return a + b",
    "test": "from solution import add\n\ndef test_it():\n    assert add(1, 2) == 3\n",
}


@pytest.mark.parametrize(
    "row", [HUMANEVAL, MBPP, SANITIZED, KODCODE], ids=["HumanEval", "MBPP", "sanitized", "KodCode"]
)
def test_unit_tests_are_found_by_the_python_grader(tmp_path: Path, row: dict[str, Any]) -> None:
    with Python() as grader:
        problem = read(tmp_path, row, grader, **({"question": "text"} if "text" in row else {}))
        assert "add(" in problem.question
        assert grader.grade(problem, "def add(a, b): return a + b").verdict is Verdict.RIGHT
        assert grader.grade(problem, "def add(a, b): return a - b").verdict is Verdict.WRONG


def test_inputs_and_outputs_are_no_unit_tests(tmp_path: Path) -> None:
    apps = {"question": "Add.", "solutions": "[]", "input_output": '{"inputs": ["1 2"], "outputs": ["3"]}'}
    with pytest.raises(UserError, match=r"no column .*'test'.*only: question, solutions, input_output"):
        read(tmp_path, apps, Python())
    with pytest.raises(UserError, match="asserts nothing"):
        read(tmp_path, apps, Python(), answer="input_output")


MATHEMATICS: dict[str, dict[str, Any]] = {
    "GSM8K": {"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"},
    "MATH": {"problem": "1 + 1?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{2}$."},
    "DeepScaleR": {"problem": "1 + 1?", "answer": "2", "solution": "Obvious."},
    "OpenR1": {"problem": "1 + 1?", "solution": "Obvious.", "answer": "2", "messages": [], "generations": ["x"]},
    "NuminaMath": {"problem": "1 + 1?", "solution": "It is $\\boxed{2}$.", "source": "cn_k12"},
    "verl": {
        "prompt": [{"role": "user", "content": "1 + 1?"}],
        "reward_model": {"ground_truth": "2", "style": "rule"},
    },
}


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics(tmp_path: Path, name: str) -> None:
    problem = read(tmp_path, MATHEMATICS[name])
    assert (problem.question, problem.answer) == ("1 + 1?", "2")
