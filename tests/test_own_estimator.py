"""`--prover.estimator ./FILE.py`: an estimator of V of the user's own, checked at the start, kept with the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support.documents import files_in
from support.hand_worked import CORRECTED
from support.short_runs import SHORT

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config.files import read_config
from backtrack_mrt.data import signs
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Trajectory

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


def test_the_documents_file_says_what_its_equation_says(own: Path) -> None:
    (own / "per_token.py").write_text(files_in("docs/algorithms.md")["per_token.py"])
    config = read_request([*SHORT, "--prover.estimator", "./per_token.py"]).config
    parts = assemble(config)
    start = Trajectory(signs.generate("train", 1, seed=0)[0], ())
    gold = parts.dialogue.answer(start.problem.answer)
    (logprobs,) = parts.engine.score([parts.dialogue.forced(start, 0)], [gold])
    assert parts.prover().values([start])[0].tolist() == [pytest.approx(np.exp(logprobs.mean()))]


class Own(MetaProver):
    """Gives what it is told to give."""

    given: Any = (0, 0.25, 0.5, 1, 0, 1 + 1e-9)
    tokens_of_an_answer: Any = 1

    def prefix_values(self, prefixes: Any) -> Any:
        return self.given

    def answer_tokens(self, problem: Any) -> Any:
        return self.tokens_of_an_answer


@pytest.fixture
def prover() -> Own:
    return Own(Dialogue(ByteChat(), load_prompts("backtrack", "terse")), ScriptedEngine())


@pytest.mark.parametrize("given", [np.zeros(1), [[0.5]] * 6, None, ["half"] * 6, torch.ones(6, requires_grad=True)])
def test_what_it_gives_is_a_number_for_each_prefix(prover: Own, given: Any) -> None:
    prover.given = given
    with pytest.raises(UserError, match=r"prover.estimator = 'Own': its prefix_values gave no 6 numbers"):
        prover.values([CORRECTED])


@pytest.mark.parametrize(("value", "told"), [(np.nan, "nan"), (np.inf, "inf"), (1.5, "1.5"), (-3.25, "-3.25")])
def test_what_it_gives_is_a_chance(prover: Own, value: float, told: str) -> None:
    prover.given = [0.5, value, 0, 1, value, 1]
    with pytest.raises(UserError, match=f"'Own': its prefix_values gave {told} for 2 of 6 prefixes"):
        prover.values([CORRECTED])


@pytest.mark.parametrize("number", [None, 4.0, "4", -1])
def test_an_answer_takes_a_number_of_tokens(prover: Own, number: Any) -> None:
    assert len(prover.values([CORRECTED])[0]) == 6
    prover.tokens_of_an_answer = number
    with pytest.raises(UserError, match="'Own': its answer_tokens gave"):
        prover.values([CORRECTED])
