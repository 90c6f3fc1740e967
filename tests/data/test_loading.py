"""Problem sets: every source, seeded draws, disjoint training and evaluation, and rows that are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from backtrack_mrt.config import DataSection
from backtrack_mrt.config.rules import GENERATED
from backtrack_mrt.data.loading import TASKS, load_problem_sets, load_problems
from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Problem

ROWS = [{"id": str(i), "problem": f"What is {i} + 1?", "answer": str(i + 1), "source": "sums"} for i in range(20)]


def jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def section(train: str | list[str], held_out: str = "signs/test", **settings: object) -> DataSection:
    sets = [train] if isinstance(train, str) else train
    return DataSection(**({"train": sets, "eval": [held_out], "train_size": None, "eval_size": 4} | settings))


def test_every_kind_of_file_gives_the_same_problems(tmp_path):
    paths = [jsonl(tmp_path / "a.jsonl", ROWS)]
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    paths += [str(tmp_path / name) for name in ("a.json", "a.csv", "a.parquet")]
    first, *others = (load_problems([path], None, 0) for path in paths)
    assert sorted(first, key=lambda p: int(p.answer))[0] == Problem("a/0", "What is 0 + 1?", "1", "sums")
    assert len(first) == 20
    assert all(other == first for other in others)


def test_columns_have_synonyms_and_ids_come_from_the_place(tmp_path):
    rows = [{"question": "1 + 1?", "result": 2}, {"question": "2 + 2?", "result": 4.5, "id": "sums/x"}]
    problems = load_problems([jsonl(tmp_path / "own.jsonl", rows)], None, 0)
    assert set(problems) == {Problem("own/0", "1 + 1?", "2", "own"), Problem("sums/x", "2 + 2?", "4.5", "own")}


def test_draws_are_seeded_and_without_replacement(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    drawn = load_problems([path], 8, seed=1)
    assert drawn == load_problems([path], 8, seed=1) != load_problems([path], 8, seed=2)
    assert len({problem.id for problem in drawn}) == 8


def test_generated_sets():
    sets = load_problem_sets(section("signs/train", train_size=50), batch=32)
    assert (len(sets.train), len(sets.eval), sets.notes) == (50, 4, [])
    assert {problem.source for problem in sets.train} == {"signs"}


def test_held_out_questions_never_train(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    same = jsonl(tmp_path / "b.jsonl", [row | {"problem": row["problem"].upper() + " . "} for row in ROWS[:5]])
    sets = load_problem_sets(section(path, same, eval_size=None))
    assert {problem.id for problem in sets.train} == {f"a/{i}" for i in range(5, 20)}
    assert sets.notes == ["data.train: 5 problems left out because data.eval asks the same"]
    split = load_problem_sets(section(path, path, eval_size=4))  # one file for both is a random split
    assert len(split.train) == 16
    assert not {p.id for p in split.train} & {p.id for p in split.eval}


@pytest.mark.parametrize("name", ["a", "words"])  # words, too, where it is no generated set but a file of one's own
def test_near_copies_and_repetitions_are_left_out(tmp_path, name):
    asked = "Tim has 12 red balls and gives 5 of them to Ada. How many red balls has Tim now?"
    train = [
        f"It was a sunny day. {asked}",  # a sentence put in front
        asked.replace("12", "20"),  # the same words around another number
        "How many red balls has Tim now? Nobody knows, but he had 30 balls of five kinds, a fifth of each.",
        "Bea sold 3 eggs and 4 hens.",
        "bea sold 3 eggs , and 4 hens !",
        "Bea sold 34 eggs and hens.",
    ]
    rows = [{"id": str(i), "problem": question, "answer": "7"} for i, question in enumerate(train)]
    held_out = jsonl(tmp_path / "held.jsonl", [{"problem": asked, "answer": "7"}])
    sets = load_problem_sets(section(jsonl(tmp_path / f"{name}.jsonl", rows), held_out, eval_size=None))
    assert {problem.id for problem in sets.train} - {f"{name}/3", f"{name}/4"} == {f"{name}/2", f"{name}/5"}
    assert len(sets.train) == 3
    assert sets.notes == [
        "data.train: 1 problems left out because an earlier one asks the same",
        "data.train: 2 problems left out because data.eval asks nearly the same",
    ]


def test_problems_are_filtered_by_v0(tmp_path):
    rated = [row | {"v0": v0} for row, v0 in zip(ROWS, (0.05, 0.1, 0.5, "0.9", 0.95, None), strict=False)]
    path = jsonl(tmp_path / "a.jsonl", rated)
    sets = load_problem_sets(section(path, path, v0=[0.1, 0.9], eval_size=1))  # held-out problems are not filtered
    assert {p.id for p in sets.train} == {"a/1", "a/2", "a/3"} - {sets.eval[0].id}
    assert sets.notes[0] == f"data.train = {path!r}: left out: 3 of 6 rows have no v0 from 0.1 to 0.9"
    for unrated in (jsonl(tmp_path / "b.jsonl", ROWS), "signs/train"):
        with pytest.raises(UserError, match=r"data\.v0 = \[0\.1, 0\.9\]: .* has no column 'v0'.*backtrack-mrt rate"):
            load_problem_sets(section(unrated, v0=[0.1, 0.9], train_size=4))


def test_bad_golds_are_refused_by_id_or_skipped(tmp_path):
    rows = [*ROWS, {"id": "empty", "problem": "?!", "answer": ""}, {"id": "null", "problem": "?!", "answer": None}]
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"2 of 22 rows .* a/empty \(is empty\), a/null") as error:
        load_problem_sets(section(path))
    assert "data.bad_golds" in error.value.remedy
    sets = load_problem_sets(section(path, bad_golds="skip"))
    assert len(sets.train) == 20
    assert "a/empty" in sets.notes[0]


BAD = {
    "unknown split": ("signs/tset", "", "no such split", "Did you mean 'test'"),
    "missing file": ("gone.jsonl", "", "no such file", ".jsonl"),
    "no set at all": ("maths", "", "not a problem set", "OWNER/NAME"),
    "a directory": ("folder/in.side", "", "holds no rows", ".jsonl"),
    "no rows": ("bad.jsonl", "\n", "no rows", "at least one"),
    "invalid JSON": ("bad.jsonl", '{"problem": "?!", "answer": "1"}\n{oops}\n', "line 2 is not valid JSON", "UTF-8"),
    "half a character": ("bad.jsonl", '{"problem": "\\ud800?!", "answer": "1"}\n', "half of a surrogate pair", "UTF-8"),
    "nested too deep": ("bad.jsonl", "[" * 100_000, "line 1 is nested too deep", "UTF-8"),
    "a NUL in a gold": ("bad.jsonl", '{"problem": "?", "answer": "1\\u00002"}\n', "holds a control character", "skip"),
    "a huge number": ("bad.jsonl", f'{{"problem": "?", "answer": "1", "rel_tol": {10**400}}}\n', "no number", "row"),
    "not UTF-8": ("bad.jsonl", b"\xff\xfe\x00", "cannot be read", "UTF-8"),
    "not an object": ("bad.jsonl", "[1]\n", "bad.jsonl:1 is not an object", "columns"),
    "no question": ("bad.jsonl", '{"text": "?!", "answer": "1"}\n', "no column 'problem' or 'question'", "Rename"),
    "no answer": (
        "bad.jsonl",
        '{"problem": "?!"}\n',
        "no column 'answer' or 'result' or 'Answer' or 'final_answer'",
        "Rename",
    ),
    "empty question": ("bad.jsonl", '{"problem": " ", "answer": "1"}\n', "bad.jsonl:1 has no text", "remove"),
    "ids twice": ("bad.jsonl", '{"problem": "?!", "answer": "1", "id": 7}\n' * 2, "more than once: bad/7", "unique"),
    "not a list": ("bad.json", "{}", "not a list of rows", "UTF-8"),
    "broken parquet": ("bad.parquet", "no parquet", "cannot be read", ".parquet"),
    "no files": ("*-of-2.jsonl", "", "no such file", ".jsonl"),
    "text for a number": (
        "bad.jsonl",
        '{"problem": "?!", "answer": "1", "rel_tol": "little"}\n',
        "bad.jsonl:1 has no number in column 'rel_tol'",
        "Correct",
    ),
    "too few": ("bad.jsonl", '{"problem": "?!", "answer": "1"}\n', "only 1 problems", "null for all"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sets_are_told_in_one_line(case, tmp_path, monkeypatch):
    name, content, reason, remedy = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "in.side").mkdir(parents=True)
    if content:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        load_problems([name], 2, 0, field="data.train")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("data.train")
    assert reason in error.value.reason
    assert remedy in error.value.remedy


def test_a_set_smaller_than_one_batch(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(UserError, match=r"data\.train = .*20 problems, fewer than one batch of 32"):
        load_problem_sets(section(path, train_size=20), batch=32)
    assert len(load_problem_sets(section(path), batch=32).train) == 20  # a batch repeats some
    with pytest.raises(UserError, match=r"has 16 problems \(data\.train: 4 problems left out because data\.eval asks"):
        load_problem_sets(section(path, path, train_size=16), batch=20)


def test_the_config_knows_which_sets_have_no_end() -> None:
    assert {f"{task}/" for task in TASKS} == set(GENERATED)
