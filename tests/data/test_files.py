"""Files and rows as people have them: endings, packed files, folders, columns inside columns."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pytest
from datasets import Dataset, DatasetDict

from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Problem

ROWS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
BOM = b"\xef\xbb\xbf"


def questions(place: Path | str) -> list[str]:
    return sorted(problem.question for problem in load_problems([str(place)], None, 0))


ALL = [row["question"] for row in ROWS]
CSV = ("question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in ROWS)).encode()


def arrow(rows: list[dict[str, str]], begin: Callable[..., Any]) -> bytes:
    table, sink = pyarrow.Table.from_pylist(rows), pyarrow.BufferOutputStream()
    with begin(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ndjson", LINES),
        ("a.JSONL", LINES),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS, indent=2).encode()),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.JSON.GZ", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.jsonl.zst", pyarrow.compress(LINES, codec="zstd", asbytes=True)),
        ("a.json", json.dumps({"data": ROWS}).encode()),
        ("a.jsonl", BOM + LINES),
        ("a.json", BOM + LINES),
        ("a.json", BOM + json.dumps(ROWS).encode()),
        ("a.csv", BOM + CSV),
        ("a.csv", CSV.replace(b",", b";")),
        ("a.csv", CSV.replace(b"question,", b" question , ")),
        ("a.tsv", CSV.replace(b",", b"\t")),
        ("a.json", json.dumps({"version": "1", "data": ROWS}).encode()),
        ("a.json", json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode()),
        ("a.arrow", arrow(ROWS, pyarrow.ipc.new_file)),
        ("a.arrow", arrow(ROWS, pyarrow.ipc.new_stream)),
    ],
)
def test_a_file_is_read_whatever_its_ending(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert questions(tmp_path / name) == ALL
    assert {problem.source for problem in load_problems([str(tmp_path / name)], None, 0)} == {"a"}


def test_one_row_is_a_set_and_a_field_too_many_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS[0]))
    assert questions(tmp_path / "a.json") == ALL[:1]
    (tmp_path / "a.csv").write_text("question,answer\nWhat, then, is 1 + 1?,2\n")
    with pytest.raises(UserError, match="line 2 has more fields"):
        questions(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("question,answer,,answer,\nq?,1,,2,\n")
    with pytest.raises(UserError, match="its header has two columns 'answer'"):
        questions(tmp_path / "a.csv")


@pytest.mark.parametrize("ending", ["gz", "zst"])
@pytest.mark.parametrize("content", [gzip.compress(LINES)[:-12], b"not packed", b""], ids=["cut", "other", "empty"])
def test_a_damaged_packed_file_is_one_line(tmp_path: Path, content: bytes, ending: str) -> None:
    (tmp_path / f"a.jsonl.{ending}").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|has no rows"):
        questions(tmp_path / f"a.jsonl.{ending}")


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "README.md").write_text("Sums.")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / "part-1.jsonl").write_bytes(LINES)
    assert questions(folder) == ALL
    (folder / "data").mkdir()
    (folder / "part-1.jsonl").rename(folder / "data" / "train-1.jsonl")
    assert questions(folder) == ALL
    (folder / "data" / "test-1.jsonl").write_bytes(LINES)
    with pytest.raises(UserError, match=r"several splits \(test, train\)"):
        questions(folder)


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "saved"))
    assert questions(tmp_path / "saved") == ALL
    DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(UserError, match=r"holds the splits test, train\. Name one: .*/both/test"):
        questions(tmp_path / "both")
    assert questions(tmp_path / "both" / "train") == ALL


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "1 + 1?", "final_answer": "2"},
        {"prompt": "1 + 1?", "expected_answer": "2"},
        {"prompt": "1 + 1?", "ground_truth": "2"},
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}],
            "reward_model": {"style": "rule", "ground_truth": "2"},
        },
        {"prompt": [{"role": "user", "content": "1 + 1?"}], "solution": "It is \\boxed{2}."},
        {"messages": [{"role": "user", "content": "1 + 1?"}], "ground_truth": "2", "dataset": "gsm8k"},
        {"prompt": "1 + 1?", "verification_info": '{"ground_truth": "2"}'},
        {"query": "1 + 1?", "response": "That makes 2.\n#### 2\nThe answer is: 2"},
        {"prompt": "1 + 1?", "reward_model": {"ground_truth": '["2"]'}},
    ],
)
def test_columns_of_other_trainers_are_known(tmp_path: Path, row: dict[str, object]) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert load_problems([str(path)], None, 0) == [Problem("own/0", "1 + 1?", "2", "own")]


def test_a_conversation_is_no_question(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "2?"}]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": said, "answer": "2"}) + "\n")
    with pytest.raises(UserError, match="has no text in column 'prompt'"):
        load_problems([str(path)], None, 0)
