"""Problems with a wrong gold: who they are, that they train nothing, and what is said of right answers to them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.canaries import SEEN, CanaryWatch, with_canaries
from backtrack_mrt.data.signs import generate
from backtrack_mrt.errors import Collapsed, UserError
from backtrack_mrt.evaluation.metrics.logged import rollout_metrics
from backtrack_mrt.grading import MathGrader, Verdict
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.records import as_record, from_record, read_trajectories
from backtrack_mrt.training.train import train
from backtrack_mrt.types import (
    Completion,
    Finish,
    Group,
    Parsed,
    Problem,
    Scored,
    StopReason,
    Trajectory,
    Turn,
    TurnSpec,
)

pytestmark = pytest.mark.usefixtures("no_reports")

CANARY = Problem("c", "What is 1 + 1?", "3", canary=True)


def scored(problem: Problem, right: bool) -> Scored:
    completion = Completion((1, 2), (-1.0, -1.0), Finish.STOP)
    turn = Turn(TurnSpec("attempt", 8), "", Parsed(answer="3"), (), completion, reward=float(right))
    return Scored(
        Trajectory(problem, (0,), (turn,), StopReason.FINISHED, "3", float(right), "right" if right else "wrong"),
        np.array([0.2, 0.8]),
    )


def test_a_share_of_the_golds_is_replaced_by_other_ones_that_differ() -> None:
    problems = generate("train", 100, seed=0)
    mixed = with_canaries(problems, 0.05, seed=1)
    changed = [(a, b) for a, b in zip(problems, mixed, strict=True) if a != b]
    assert len(changed) == 5
    with MathGrader() as grader:
        for honest, canary in changed:
            assert (canary.id, canary.question, canary.canary) == (honest.id, honest.question, True)
            assert canary.answer in {problem.answer for problem in problems}
            assert grader.grade(canary.answer, honest.answer) is Verdict.WRONG
    assert mixed == with_canaries(problems, 0.05, seed=1) != with_canaries(problems, 0.05, seed=2)
    assert with_canaries(problems, 0.0, seed=1) == problems


def test_golds_that_are_written_differently_but_equal_will_not_do() -> None:
    problems = [Problem(str(i), "?", gold) for i, gold in enumerate(["1/2", "0.5", r"\frac{1}{2}"])]
    with pytest.raises(UserError, match=r"data\.canaries"):
        with_canaries(problems, 0.3, seed=0)


@pytest.mark.parametrize("algo", plugins.names("backtrack_mrt.algos"))
def test_canaries_have_no_weight(algo: str) -> None:
    algorithm = plugins.load("backtrack_mrt.algos", algo, Algorithm, "algo")()  # type: ignore[type-abstract]
    members = (scored(CANARY, True), scored(CANARY, False))
    assert not np.any(algorithm.weigh(Group(CANARY, members)))
    honest = replace(CANARY, canary=False)
    assert np.any(algorithm.weigh(Group(honest, (scored(honest, True), scored(honest, False)))))


def test_they_are_logged_apart() -> None:
    honest = Problem("h", "?", "3")
    metrics = rollout_metrics([scored(honest, True), scored(CANARY, False), scored(CANARY, True)])
    assert (metrics["canary/right"], metrics["outcome"], metrics["grader/right"]) == (0.5, 1.0, 1.0)
    assert "canary/right" not in rollout_metrics([scored(honest, True)])
    record = as_record(scored(CANARY, False))
    assert from_record(record).trajectory.problem == CANARY


def test_too_many_right_ones_are_told_once() -> None:
    watch = CanaryWatch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.see([scored(CANARY, False).trajectory] * (SEEN - 1))
        watch.see([scored(Problem("h", "?", "3"), True).trajectory] * 100)
        watch.see([scored(CANARY, True).trajectory] * 2)
    with pytest.warns(UserWarning, match="4 of 43 answers to canaries"):
        watch.see([scored(CANARY, True).trajectory] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.see([scored(CANARY, True).trajectory] * 2)


@pytest.mark.parametrize("algo", ["mrt-rl", "star"])
def test_a_run_with_nothing_but_canaries_learns_nothing(algo: str, tmp_path: Path) -> None:
    """`training.kl` is 0: without a weight no gradient is left (star: nothing is kept, which is an error)."""
    small = ["--training.steps", "1", "--training.problems_per_step", "2", "--training.group_size", "2"]
    small += ["--data.train_size", "4", "--data.eval_size", "2", "--training.micro_batch_size", "2"]
    small += ["--data.canaries", "0.99", "--training.weight_decay", "0", "--output-dir", str(tmp_path / "run")]
    request = read_request(["--algo", algo, *small])
    if algo == "star":
        with pytest.raises(Collapsed, match="kept none"):
            train(request)
        return
    train(request)
    run = RunDir(tmp_path / "run")
    (row,) = run.metrics()
    assert row["grad_norm"] == 0.0
    assert "canary/right" in row
    (path,) = run.trajectories.glob("step_*.jsonl")
    assert all(member.trajectory.problem.canary for member in read_trajectories(path))
