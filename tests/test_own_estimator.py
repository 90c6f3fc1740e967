"""`--prover.estimator ./FILE.py`: an estimator of V of the user's own, checked at the start, kept with the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.short_runs import SHORT

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config.files import read_config
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.training.train import train

HALVES = """
import numpy as np

import backtrack_mrt as bt


class Halves(bt.MetaProver):
    summary = "half of what the grader says of the gold"

    def prefix_values(self, prefixes):
        return np.array([self.grader.grade(problem, problem.answer).reward / 2 for _, problem in prefixes])

    def answer_tokens(self, problem):
        return 1
"""


BAD = [("likelyhood", "Did you mean 'likelihood'"), ("./none.py", "cannot be read"), ("x", "unknown name")]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "halves.py").write_text(HALVES)
    (tmp_path / "mine.yaml").write_text("prover: {estimator: ./halves.py}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_estimates_the_values_of_a_run_and_is_kept_with_it(own: Path) -> None:
    flags = [
        "--prover.estimator",
        "./halves.py",
        "--output-dir",
        "out",
        "--training.steps",
        "1",
        "--data.eval_size",
        "4",
    ]
    train(read_request([*SHORT, "--prover.estimator", "./halves.py", *flags]))
    saved = yaml.safe_load((own / "out/config.yaml").read_text())["prover"]["estimator"]
    assert saved.startswith("plugins/")
    assert (own / "out" / saved).read_text() == HALVES
    run = read_run(own / "out")
    assert run.history[0]["value/turn_0"] == 0.5
    assert Path(read_config("out/config.yaml").prover.estimator).is_absolute()


def test_a_path_in_a_file_holds_from_there(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = read_request(["--config", "tiny.yaml", str(own / "mine.yaml")]).config
    assert config.prover.estimator == str(own / "halves.py")


@pytest.mark.parametrize(
    ("flag", "told"),
    BAD,
)
def test_a_mistake_is_told_before_anything_is_loaded(own: Path, flag: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read_request(["--prover.estimator", flag])
    assert "prover.estimator" in caught.value.field
