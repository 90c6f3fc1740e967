"""`backtrack-mrt grade` as a user meets it: rows in, rows out, and one clear line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt.cli.commands.grade import grade_rows, parse_rows
from backtrack_mrt.cli.main import main
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.math import Math


def test_rows_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    rows = (
        '{"id": "a", "gold": "1/2", "answer": "0.5", "note": "not looked at"}\n\n'
        '{"gold": "7", "answer": "So \\\\boxed{8}", "form": "completion"}\n'
        '{"id": 3, "gold": "7", "answer": null}\n{"id": 4, "gold": "7", "answer": "\\ud800"}\n'
    )
    file = tmp_path / "rows.jsonl"
    file.write_text(rows)
    expected = [("a", "right"), (None, "wrong"), (3, "unparsable"), (4, "unparsable")]
    for result in (command("grade", file, "--summary"), command("grade", "-", stdin=rows)):
        assert result.returncode == 0, result.stderr
        printed = [json.loads(line) for line in result.stdout.splitlines()]
        assert [(row.get("id"), row["verdict"]) for row in printed] == expected
        assert all(row["seconds"] >= 0 for row in printed)


def test_what_a_grader_prints_is_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "def judge(self, problem, answer):\n        print('judging')\n        return 1.0\n"
    (tmp_path / "own.py").write_text(f"import backtrack_mrt as bt\nclass Own(bt.Grader):\n    {body}")
    (tmp_path / "rows.jsonl").write_text('{"gold": "7", "answer": "7"}\n')
    main(["grade", str(tmp_path / "rows.jsonl"), "--grader", str(tmp_path / "own.py")])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["verdict"] == "right"
    assert "judging" in printed.err


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"gold": "7", "answer": "7"}\n{"gold": 7, "answer": "7"}\n')
    result = command("grade", file)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for part in (str(file), "line 2", "gold", "7", "type int", "string"):
        assert part in result.stderr
    missing = command("grade", tmp_path / "nowhere.jsonl")
    assert missing.returncode == 2
    assert "nowhere.jsonl" in missing.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        ("\udcff", "not JSON"),
        ('{"gold": ' + "7" * 5000 + "}", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "no field"),
        ('{"gold": "7"}', "answer"),
        ('{"gold": "7", "answer": ["7"]}', "type list"),
        ('{"gold": "7", "answer": "7", "form": "anser"}', "Did you mean 'answer'"),
        ('{"gold": "7", "answer": "7", "form": ["answer"]}', "not a known form"),
    ],
)
def test_bad_rows_are_named(line: str, told: str) -> None:
    with pytest.raises(UserError, match=r"rows, line 2") as caught:
        list(parse_rows(["\n", line], "rows"))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_tolerance_reaches_the_grader() -> None:
    rows = parse_rows(['{"gold": "4.5e33", "answer": "4.52e33"}'] * 2, "rows")
    with Math() as grader:
        assert [row["verdict"] for row in grade_rows(rows, grader, rel_tol=0.01)] == ["right", "right"]
