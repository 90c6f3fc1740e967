"""What is said about values: their bias, and whether it is more than chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.command_line import command

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import generate
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.calibration import Bias, at_start, calibrate, prefixes_of
from backtrack_mrt.graders.math import Math
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.rollouts.prover import AutoProver, MetaProver, Prefix, SampledProver
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.types import FloatArray, Problem, Scored, Trajectory, Turn

PROBLEMS = generate("validation", 6, seed=5)


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return assemble(read_request([]).config)


class Known(MetaProver):
    """Says what it is told."""

    def __init__(self, values: list[float]) -> None:
        self.told, self.tokens = values, 0

    def prefix_values(self, prefixes: list[Prefix]) -> FloatArray:
        self.tokens += 3 * len(prefixes)
        return np.array(self.told)

    def answer_tokens(self, problem: Problem) -> int:
        return 3


def test_the_bias_has_the_problem_as_its_unit() -> None:
    problems = [Problem("a", "", "1")] * 2 + [Problem("b", "", "2")] * 2
    prefixes = [((1,), problem) for problem in problems]
    sampled, first = Known([0.5, 0.5, 0.2, 0.2]), Known([0.3, 0.3, 0.2, 0.2])
    one, exact = calibrate(prefixes, {"one": first, "exact": sampled}, np.array(sampled.told))
    assert (one.bias, one.mean, one.tokens) == pytest.approx((0.1, 0.25, 3.0))
    assert one.se == pytest.approx(0.1)  # of two problems with gaps .2 and 0, not of four prefixes
    assert one.interval == pytest.approx((0.1 - 0.196, 0.1 + 0.196))
    assert (exact.bias, exact.se, exact.rmse, exact.off) == (0, 0, 0, False)


@pytest.mark.parametrize(
    ("bias", "se", "off"), [(0.05, 0.01, True), (-0.05, 0.01, True), (0.05, 0.04, False), (0.005, 0.001, False)]
)
def test_a_warning_wants_a_bias_beyond_chance_that_matters(bias: float, se: float, off: bool) -> None:
    found = Bias("likelihood", 16, 0.3, bias, se, 0.1, 3.0, 0.01)
    assert found.off is off
    assert ("warning" in "\n".join(found.told())) is off
    assert not off or "prover.estimator to auto" in found.told()[1]
    assert found.as_json()["off"] is off


def test_a_run_s_calibration_changes_nothing_in_it(parts: Assembly) -> None:
    """On the embedded model nothing can be off; with golds of several forms there is something to see."""
    assert at_start(parts, PROBLEMS) is None
    collector = parts.training_collector()
    rows, seeds = [p for p in PROBLEMS for _ in range(8)], trajectory_seeds(0, 1, 8 * len(PROBLEMS))
    before = collector.collect(rows, seeds, 1.0)
    found = at_start(parts, [replace(problem, answer="12") for problem in PROBLEMS])
    assert found is not None
    assert 0 < found.prefixes <= 16
    assert found.estimator == "likelihood"
    after = collector.collect(rows, seeds, 1.0)
    assert [s.trajectory.token_ids for s in after.scored] == [s.trajectory.token_ids for s in before.scored]
    assert all((a.values == b.values).all() for a, b in zip(after.scored, before.scored, strict=True))


def test_samples_are_right_if_training_pays_for_them(parts: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for 10-3 where 7 is asked, which evaluation counts: no spelling of the likelihood's."""
    asked, judge_many = set[str](), Math.judge_many
    monkeypatch.setattr(Math, "judge_many", lambda grader, some: asked.add(grader.forms) or judge_many(grader, some))
    bias = at_start(parts, [replace(problem, answer="12") for problem in PROBLEMS])
    assert bias is not None
    assert asked == {"numeral"}


@pytest.mark.parametrize("settings", [{"estimator": "monte_carlo"}, {"estimator": "none"}, {"calibration": 0}])
def test_what_is_never_off_is_not_looked_at(parts: Assembly, settings: dict[str, str]) -> None:
    config = parts.config.model_copy(update={"prover": parts.config.prover.model_copy(update=settings)})
    several = [replace(problem, answer="12") for problem in PROBLEMS]
    assert at_start(replace(parts, config=config), several) is None


def test_the_prover_s_settings_reach_its_samples(parts: Assembly) -> None:
    section = parts.config.prover.model_copy(update={"estimator": "monte_carlo", "temperature": 0.6, "top_p": 0.9})
    prover = parts.prover(section)
    assert isinstance(prover, SampledProver)
    assert (prover.sampling.temperature, prover.sampling.top_p) == (0.6, 0.9)
    assert prover.likelihood is None, "it is about the policy as it is"
    auto = parts.prover(parts.config.prover.model_copy(update={"estimator": "auto"}))
    assert isinstance(auto, AutoProver)
    assert auto.monte_carlo.likelihood is not None


def test_a_long_solution_is_sampled_and_has_no_likelihood() -> None:
    flags = ["--env", "open-ended", "--prompts", "mrt-official"]
    with pytest.raises(UserError, match="do not end in") as refused:
        assemble(read_request(flags).config)
    assert [mistake.field for mistake in refused.value.mistakes] == ["prover.estimator"]  # no answer is trained here
    with pytest.raises(UserError) as refused:
        assemble(read_request(flags).config, training=True)
    told = ["prover.estimator", "algorithm.answer_weight"]
    assert [mistake.field for mistake in refused.value.mistakes] == told
    for estimator in ("monte_carlo", "greedy"):
        settings = ["--prover.estimator", estimator, "--prover.samples", "2", "--prover.max_answer_tokens", "8"]
        parts = assemble(read_request([*flags, *settings]).config)
        collected = parts.training_collector().collect(PROBLEMS[:1] * 8, trajectory_seeds(0, 1, 8), 1.0)
        assert all(s.values is not None and len(s.values) == len(s.trajectory.turns) + 1 for s in collected.scored)
        assert collected.ledger.prover > 0


@pytest.mark.parametrize("setting", ["temperature", "top_p"])
@pytest.mark.parametrize("estimator", ["likelihood", "auto"])
def test_the_likelihood_is_that_of_the_policy_as_it_is(setting: str, estimator: str) -> None:
    flags = ["--prover.estimator", estimator, f"--prover.{setting}", "0.5"]
    with pytest.raises(Exception, match=rf"prover\.{setting}.*as it is"):
        read_request(flags)


def test_the_command_says_how_far_it_is_and_what_each_estimator_misses(tmp_path: Path) -> None:
    done = command("calibrate", "--data.eval_size", 2, "--prover.samples", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said, *lines = done.stdout.splitlines()
    prefixes = int(re.fullmatch(r"(\d+) prefixes of 2 problems, 4 sampled answers each", said)[1])  # type: ignore[index]
    assert [line.split("  ")[0] for line in lines] == ["one tokenisation", "likelihood", "auto", "monte_carlo"]
    assert "rollouts 2/2" in done.stderr
    assert f"sampled answers {4 * prefixes}/{4 * prefixes}" in done.stderr


def test_prefixes_without_room_for_an_answer_are_not_asked(parts: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("fraction", "1/2 of 5?", "5/2")  # whose gold has several spellings
    monkeypatch.setattr(parts.engine, "context_length", 40)
    assert prefixes_of(parts, [Scored(Trajectory(problem, (1,) * 30))]) == [[]]
    monkeypatch.setattr(parts.engine, "context_length", 60)
    assert at_start(parts, [problem]) is None


class Replying(Math):
    """Every reply counts, as in a conversation."""

    def standing(self, problem: Problem, turns: Sequence[Turn]) -> Problem:
        return replace(problem, answer=f"{problem.answer} after {len(turns)}")


def test_a_prefix_stands_for_what_the_grader_says_it_does(parts: Assembly) -> None:
    collector = parts.collector(parts.config.protocol, with_values=False)
    scored = collector.collect(PROBLEMS[:2], trajectory_seeds(0, 1, 2), 1.0).scored
    for member, prefixes in zip(scored, prefixes_of(replace(parts, paying=Replying()), scored), strict=True):
        gold = member.trajectory.problem.answer
        assert len(prefixes) > 1
        assert [problem.answer for _, problem in prefixes] == [f"{gold} after {j}" for j in range(len(prefixes))]
