"""Ready-made sets, with the columns that their cards document, and sets of one's own; no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from backtrack_mrt.config import DataSection, SetSection
from backtrack_mrt.data import sources
from backtrack_mrt.data.catalogue import CATALOGUE
from backtrack_mrt.data.loading import load_held_out, load_problem_sets, load_problems, on_hub
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.math import MATH as MATH_GRADER
from backtrack_mrt.graders.python import Python
from backtrack_mrt.grading import MathGrader, Verdict

GSM8K = [
    {"question": "Tim has 2 bags of 3 nuts. How many nuts?", "answer": "2 bags of 3 are <<2*3=6>>6 nuts.\n#### 6"},
    {"question": "Ada owes 1500 dollars and pays 300. What is left?", "answer": "1500 - 300 = 1200\n#### 1,200"},
]
MATH = [
    {
        "problem": "What is half of $3$?",
        "level": "Level 1",
        "type": "Prealgebra",
        "solution": "It is \\boxed{\\frac{3}{2}}.",
    }
]
CALC = [
    {
        "id": "calc__1",
        "question": "Tim had 7 figs and ate 4. How many are left?",
        "chain": "",
        "result": "3",
        "result_float": 3.0,
    }
]
SVAMP = [
    {
        "ID": "chal-1",
        "Body": "Tim had 7 figs.",
        "Question": "He ate 4. How many are left?",
        "Equation": "( 7.0 - 4.0 )",
        "Answer": "3.0",
        "Type": "Subtraction",
        "question_concat": "Tim had 7 figs. He ate 4. How many are left?",
    }
]
NUMINA = {
    "problem": "Find $x$ if $2x = 9$.",
    "solution": "…",
    "answer": "$\\frac{9}{2}$",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "problem_is_valid": "Yes",
    "solution_is_valid": "Yes",
    "source": "olympiads",
    "synthetic": False,
}
ROWS: dict[str, list[dict[str, Any]]] = {  # by place on the hub: its documented columns; the first row is usable
    "AI-MO/NuminaMath-1.5:train": [
        NUMINA,
        NUMINA | {"question_type": "proof", "answer": "proof"},
        NUMINA | {"answer": "proof"},
        NUMINA | {"answer": "notfound"},
        NUMINA | {"answer": None},
        NUMINA | {"question_type": "MCQ", "answer": "B"},
        NUMINA | {"problem_is_valid": "Incomplete"},
        NUMINA | {"solution_is_valid": "Problem not solved"},
    ],
    "AI-MO/NuminaMath-CoT:train": [
        {
            "source": "cn_k12",
            "problem": "Find $2 + 2$.",
            "solution": "Thus \\boxed{4}.",
            "messages": [{"content": "Find $2 + 2$.", "role": "user"}],
        },
        {"source": "olympiads", "problem": "Show that $2 > 1$.", "solution": "Clear.", "messages": []},
    ],
    "agentica-org/DeepScaleR-Preview-Dataset:train": [
        {"problem": "Find $2 + 3$.", "answer": "5", "solution": "$5$"},
        {"problem": "Find $2 + 4$.", "answer": "", "solution": ""},
    ],
    "meta-math/MetaMathQA:train": [
        {
            "type": "GSM_AnsAug",
            "query": "Tim has 5 bags of 22 nuts. How many nuts?",
            "original_question": "Tim has 5 bags of 22 nuts. How many nuts?",
            "response": "5 bags of 22 are 110 nuts.\n#### 110\nThe answer is: 110",
        },
        {
            "type": "MATH_Rephrased",
            "query": "What is half of $3$?",
            "original_question": "What is half of $3$?",
            "response": "It is $\\boxed{\\frac{3}{2}}$. The answer is: \\frac{3}{2}",
        },
    ],
    "openai/gsm8k/main:train": GSM8K,
    "openai/gsm8k/main:test": GSM8K,
    "MU-NLPC/Calc-mawps:train": CALC,
    "MU-NLPC/Calc-mawps:test": CALC,
    "MU-NLPC/Calc-asdiv_a:test": CALC,
    "ChilleD/SVAMP:train": SVAMP,
    "ChilleD/SVAMP:test": SVAMP,
    "HuggingFaceH4/MATH-500:test": [
        MATH[0] | {"answer": "\\frac{3}{2}", "subject": "Prealgebra", "level": 1, "unique_id": "test/prealgebra/1.json"}
    ],
    "HuggingFaceH4/aime_2024:train": [
        {"id": 60, "problem": "Find $20 + 4$.", "solution": "$24$", "answer": "024", "url": "…", "year": "2024"}
    ],
    "math-ai/aime25:test": [{"problem": "Find $20 + 5$.", "answer": "25", "id": "0"}],
    "math-ai/amc23:test": [{"id": 0, "question": "Find $3 \\cdot 9$.", "answer": 27.0, "url": "…"}],
    "math-ai/minervamath:test": [{"question": "How far is a parsec, in m?", "answer": "3.09e16"}],
}
FOX = {"question": "Which is red?", "choices": {"text": ["a cat", "a fox"], "label": ["A", "B"]}, "answerKey": "B"}
CODE = {"prompt": "Write f(x), x plus 1.", "test_imports": [], "test_list": ["assert f(1) == 2"], "code": "…"}
ROWS |= {  # of options, and of tests
    "deepmind/aqua_rat/raw:train": [
        {"question": "Which is red?", "options": ["A)a cat", "B)a fox"], "rationale": "…", "correct": "B"}
    ],
    **{f"tau/commonsense_qa:{split}": [FOX | {"question_concept": "red"}] for split in ("train", "validation")},
    "allenai/ai2_arc/ARC-Challenge:test": [FOX | {"id": "MEA_2016_8_14"}],
    "allenai/openbookqa/main:test": [FOX | {"question_stem": FOX["question"], "id": "8-343"}],
    "cais/mmlu/all:test": [{"question": "Which is red?", "subject": "x", "choices": ["a cat", "a fox"], "answer": 1}],
    "TIGER-Lab/MMLU-Pro:test": [
        {"question_id": 70, "question": "Which is red?", "options": ["a cat", "a fox"], "answer": "B"}
        | {"answer_index": 1, "cot_content": "", "category": "x", "src": "x"}
    ],
    "Idavidrein/gpqa/gpqa_diamond:train": [
        {"Question": "Which is red?", "Correct Answer": "a fox"}
        | {f"Incorrect Answer {n}": text for n, text in enumerate(("a cat", "an eel", "an owl"), 1)}
    ],
    "Rowan/hellaswag:validation": [{"ctx": "A fox is", "endings": ["blue.", "red."], "label": "1", "ind": 24}],
    **{f"google-research-datasets/mbpp/sanitized:{split}": [CODE] for split in ("train", "test")},
    "openai/openai_humaneval:test": [
        {"task_id": "HumanEval/0", "prompt": "def f(x):", "canonical_solution": "…", "entry_point": "f"}
        | {"test": "def check(candidate):\n    assert candidate(1) == 2"}
    ],
}
CHOICES = ("aqua", "commonsense-qa", "commonsense-qa-test", "arc-challenge", "openbookqa", "mmlu", "mmlu-pro")
GRADERS = {"mbpp": Python(), "mbpp-test": Python(), "humaneval": Python()}
GOLDS = {  # of the usable rows
    **{name: ["B"] for name in (*CHOICES, "hellaswag")},
    "gpqa-diamond": ["C"],  # shuffled: its rows have the right one first
    **{name: ["assert f(1) == 2"] for name in ("mbpp", "mbpp-test")},
    "humaneval": ["def check(candidate):\n    assert candidate(1) == 2\ncheck(f)"],
    "numina-math": ["$\\frac{9}{2}$"],
    "numina-math-cot": ["4"],
    "deepscaler": ["5"],
    "metamath": ["110", "\\frac{3}{2}"],
    **{name: ["6", "1,200"] for name in ("gsm8k", "gsm8k-test")},
    **{name: ["\\frac{3}{2}"] * 7 for name in ("math", "math-test")},  # once for each subject
    "math500": ["\\frac{3}{2}"],
    **{name: ["3"] for name in ("mawps", "mawps-test", "asdiv", "svamp", "svamp-test")},
    "aime24": ["024"],
    "aime25": ["25"],
    "amc23": ["27"],
    "minerva-math": ["3.09e16"],
}


@pytest.fixture
def stored(monkeypatch) -> None:
    """A hub that holds `ROWS`."""

    def load_dataset(name: str, subset: str | None, split: str) -> Dataset:
        if name == "EleutherAI/hendrycks_math":
            return Dataset.from_list(MATH)
        return Dataset.from_list(ROWS[f"{name}/{subset}:{split}" if subset else f"{name}:{split}"])

    monkeypatch.setattr(sources, "rely_on_cache_if_unreachable", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def jsonl(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def only(name: str, sets: dict[str, SetSection] | None = None):
    return load_problems([name], None, 0, sets=sets)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_ready_made_set_loads_with_its_documented_columns(name, stored):
    problems, _ = load_held_out(
        DataSection(eval=[name], eval_size=None, bad_golds="skip"), GRADERS.get(name, MATH_GRADER)
    )
    assert sorted(problem.answer for problem in problems) == sorted(GOLDS[name])
    assert {problem.id.partition("/")[0] for problem in problems} == {name}
    assert {problem.rel_tol for problem in problems} == {CATALOGUE[name].rel_tol}
    with MathGrader(workers=1) as grader:
        verdicts = grader.grade_many([(problem.answer, problem.answer) for problem in problems])
    assert set(verdicts) == {Verdict.RIGHT}


def test_what_a_ready_made_set_leaves_out_is_told(stored):
    sets = load_problem_sets(DataSection(train=["numina-math", "deepscaler"], train_size=None, eval_size=4))
    assert {problem.question for problem in sets.train} == {NUMINA["problem"], "Find $2 + 3$."}
    wanted, numina, deepscaler = sets.notes
    assert "left out: 4 of 8 rows: wanted are those with question_type = math-word-problem" in wanted
    assert "3 of 8 rows have no gold answer that can be graded: numina-math/2 (is no answer but says so: " in numina
    assert "1 of 2 rows have no gold answer that can be graded: deepscaler/1 (is empty)" in deepscaler


@pytest.mark.parametrize("name", ["math500", "math500=copy.jsonl", "openai/gsm8k/main:test[:9]", "math-ai/aime25:test"])
def test_test_sets_are_not_trained_on(name, stored):
    with pytest.raises(UserError, match=r"data\.train = .*test set.*data\.eval"):
        load_problem_sets(DataSection(train=[name], train_size=None, eval_size=4))


def test_a_place_on_the_hub_means_the_ready_made_set(stored):
    (problem,) = only("math-ai/minervamath:test")
    assert (problem.id, problem.rel_tol) == ("minervamath/0", 0.01)
    assert only("HuggingFaceH4/aime_2024")[0].id == "aime_2024/60"  # its only split is `train`


def test_another_place_keeps_what_is_no_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "copy.jsonl", {"problem": "How far?", "answer": "3.09e16"})
    (problem,) = only("minerva-math=copy.jsonl")
    assert (problem.id, problem.rel_tol) == ("minerva-math/0", 0.01)
    moved = {"minerva-math": SetSection(path=["copy.jsonl"])}
    assert only("minerva-math", moved) == [problem]
    assert only("minerva-math", {"minerva-math": SetSection(path=["copy.jsonl"], rel_tol=0.1)})[0].rel_tol == 0.1
    assert not on_hub("minerva-math", moved)
    assert on_hub("minerva-math", {})


def test_sets_of_ones_own(tmp_path):
    rows = [
        {"Body": "Tim had 7 figs.", "Ask": "He ate 4. What is left?", "out": "7 - 4 = 3\n#### 3", "kind": "sum"},
        {"Body": "Ada had 9 figs.", "Ask": "Where is she?", "out": "", "kind": "riddle"},
    ]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    figs = SetSection(path=path, question=["Body", "Ask"], answer="out", where={"kind": "sum"}, rel_tol=0.1)
    (problem,) = only("figs", {"figs": figs})
    assert (problem.id, problem.question) == ("figs/0", "Tim had 7 figs. He ate 4. What is left?")
    assert (problem.answer, problem.rel_tol) == ("3", 0.1)
    assert only(f"figs={path}", {"figs": figs.model_copy(update={"path": ["gone.jsonl"]})}) == [problem]
    for wrong in ({"question": ["Bdoy"]}, {"answer": ["answer"]}, {"where": {"level": "1"}}):
        with pytest.raises(UserError, match=r"no column '(Bdoy|answer|level)', only: Body, Ask, out, kind"):
            only("figs", {"figs": figs.model_copy(update=wrong)})


def test_many_files_make_one_set(tmp_path):
    for part in ("b/train-1.jsonl", "a/train-1.jsonl", "a/test-1.jsonl"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        jsonl(tmp_path / part, {"question": part, "answer": 1})
    problems = only(f"gsm8k={tmp_path}/*/train-*.jsonl")
    assert {(problem.id, problem.question) for problem in problems} == {
        ("gsm8k/0", "a/train-1.jsonl"),
        ("gsm8k/1", "b/train-1.jsonl"),
    }


def test_names_that_are_no_set_are_explained(stored):
    for name, near in (("aime2025", "aime25"), ("gsm8k/train", "gsm8k"), ("math500:test", "math500"), ("amc", "amc23")):
        with pytest.raises(UserError, match="not a problem set") as error:
            only(name)
        assert f"Did you mean '{near}'?" in error.value.remedy
        assert "OWNER/NAME" in error.value.remedy
