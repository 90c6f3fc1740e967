"""Five tasks with five verifiers, one command each: they are trained, or played and graded, end to end."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.countdown import generate, numbers_and_target, ways
from backtrack_mrt.data.demonstrations.countdown import demonstrate_countdown
from backtrack_mrt.data.demonstrations.signs import FORCED_ANSWER
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.data.quizzes import QUIZZES
from backtrack_mrt.graders.countdown import Countdown
from backtrack_mrt.runs.finished import read_run

pytestmark = pytest.mark.usefixtures("no_reports")

ROOT = Path(__file__).parents[2]
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"


def test_golds_of_countdown_are_right_and_splits_hold_out_problems() -> None:
    splits = {split: generate(split, 300, seed=0) for split in ("base", "train", "validation", "test")}
    asked = {split: {numbers_and_target(problem) for problem in problems} for split, problems in splits.items()}
    assert not asked["base"] & asked["test"]
    assert not asked["train"] & asked["test"]
    with Countdown() as grader:
        for problem in splits["test"][:50]:
            numbers, target = numbers_and_target(problem)  # type: ignore[misc]
            assert grader.grade(problem, problem.answer).reward == 1
            rewards = {grader.grade(problem, way.expression).reward == (way.value == target) for way in ways(numbers)}
            assert rewards == {True}
    assert generate("test", 20, seed=3) == generate("test", 20, seed=3)


def test_forced_answers_of_countdown_repeat_what_is_secured() -> None:
    """The standing solution if it is right, else its first step if that leads to one; also behind "No error"."""
    rng, ends = random.Random(0), Counter[str]()
    with Countdown() as grader:
        for problem in generate("base", 400) * 3:
            *turns, last = demonstrate_countdown(problem, rng)
            if last.phase != FORCED_ANSWER:
                continue
            answer = last.text.removeprefix(r"\boxed{").removesuffix("}")
            assert grader.grade(problem, answer).reward == 1
            ends[turns[-1].spans[-1].text if turns else ""] += 1
            solutions = [turn.text for turn in turns if "boxed" in turn.text]
            standing = solutions[-1].rpartition("{")[2].removesuffix("}") if solutions else ""
            if grader.grade(problem, standing).reward == 1:
                assert answer == standing
    assert ends[""] > 50
    assert ends["Miss: 0;\nNo error"] > 20


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_has_golds_that_its_grader_takes(name: str) -> None:
    config = read_request(["--config", {"words": "text"}.get(name, name) + ".yaml"]).config
    sets = load_problem_sets(config.data, 4, config.grading)
    assert not {problem.question for problem in sets.train} & {problem.question for problem in sets.eval}
    if config.grading.golds_are_answers:
        with config.grading as grader:
            assert {grader.grade(problem, problem.answer).reward for problem in sets.eval} == {1.0}


def test_countdown_takes_a_step(tmp_path: Path) -> None:
    """Its policy keeps to the protocol, and is sometimes right."""
    size = ["--training.steps", "1", "--training.problems_per_step", "8", "--data.eval_size", "16"]
    done = command("train", "--config", "countdown.yaml", *size, "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    row = run.history[0]
    assert row["stop/violation"] < 0.2
    assert 0.05 < row["outcome"] < 0.95
    assert row["value/turn_0"] > 0


@pytest.mark.slow
def test_countdown_is_trained_and_evaluated_by_one_command(tmp_path: Path) -> None:
    done = command("train", "--config", "countdown.yaml", "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    assert run.mean("trained", "accuracy") > run.mean("base", "accuracy") + 0.02


@pytest.mark.smollm2
@pytest.mark.parametrize("name", ["choice", "text", "programs"])
def test_a_real_model_is_evaluated_on_a_quiz(name: str, tmp_path: Path) -> None:
    if not SMOLLM2.is_dir():
        pytest.skip("SmolLM2 is not here (python scripts/fetch_smollm2.py)")
    flags = ["--config", f"{name}.yaml", "--data.eval_size", "8", "--env", "single"]
    done = command(
        "evaluate", SMOLLM2, *flags, "--save", tmp_path / "saved", "--prover.estimator", "none", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "saved/evaluation_model.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert {row["verdict"] for row in rows} & {"right", "wrong", "timeout", "unparsable"}
