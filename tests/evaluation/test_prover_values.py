"""Problems rated by V_0: `backtrack-mrt rate` on the embedded model, going on after an interruption, others' files."""

from __future__ import annotations

import json

import pytest
from support.command_line import command

from backtrack_mrt.config import DataSection
from backtrack_mrt.data.loading import load_problem_sets, load_problems
from backtrack_mrt.data.signs import generate
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.prover_values import rate
from backtrack_mrt.types import Problem

PROBLEMS = generate("train", 10, seed=0)


def values(problems: list[Problem]) -> list[float]:
    return [len(problem.answer) / 100 for problem in problems]


def test_what_is_rated_can_be_filtered_and_trained_on(tmp_path):
    path = tmp_path / "rated.jsonl"
    loose = Problem("sums/0", "1 + 1?", "2", "sums", 0.1)
    v0 = rate([*PROBLEMS, loose], path, "me", values, chunk=4)
    assert v0 == values([*PROBLEMS, loose])
    assert set(load_problems([str(path)], None, 0)) == {*PROBLEMS, loose}
    chosen = load_problem_sets(DataSection(train=[str(path)], v0=[0.0, 0.05], train_size=None, eval_size=4)).train
    assert set(chosen) == {p for p in (*PROBLEMS, loose) if len(p.answer) <= 5}


def test_an_interrupted_rating_goes_on(tmp_path):
    path, asked = tmp_path / "rated.jsonl", []

    def interrupted(problems: list[Problem]) -> list[float]:
        asked.append(problems)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return values(problems)

    with pytest.raises(KeyboardInterrupt):
        rate(PROBLEMS, path, "me", interrupted, chunk=4)
    with path.open("a") as file:
        file.write('{"id": "signs/tr')  # a line that was cut short
    done: list[int] = []
    assert rate(PROBLEMS, path, "me", interrupted, 4, done.append) == values(PROBLEMS)
    assert (done, asked[3]) == ([8, 2], PROBLEMS[8:])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [p.id for p in PROBLEMS]


OTHERS = ['{"id": "a"}\n', "no JSON\n", '{"id": "a", "v0": 0.5, "rated_by": "you"}\n', "[]\n", "a line without an end"]


@pytest.mark.parametrize("content", OTHERS)
def test_other_files_are_left_alone(tmp_path, content):
    path = tmp_path / "rated.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=r"--out = .*Name another file"):
        rate(PROBLEMS, path, "me", values, chunk=4)
    assert path.read_text() == content


def test_it_rates_with_the_model_of_the_config(tmp_path):
    flags = ("--data.train_size", "40", "--data.eval_size", "4", "--data.v0", "0.2", "0.8", "--out", "rated.jsonl")
    done = command("rate", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rated.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 40
    assert all(0 < row["v0"] < 1 and row["rated_by"] == "tiny, backtrack/terse, likelihood" for row in rows)
    assert "rated.jsonl: 40 problems, V_0 quartiles" in done.stdout


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "--out"),
        (["--out", "rated.csv"], "Name a .jsonl file"),
        (["--out", "no/such/rated.jsonl"], "its directory does not exist"),
        (["--out", "r.jsonl", "--algo", "grpo", "--prover.estimator", "none"], "prover.estimator = 'none'"),
        (["--out", "r.jsonl", "--data.v0", "1"], "at least 2 items"),
    ],
)
def test_mistakes_are_told_before_a_model_loads(flags, told, tmp_path):
    done = command("rate", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(tmp_path.iterdir())
