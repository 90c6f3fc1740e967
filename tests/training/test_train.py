"""Whole runs of the embedded default, made short."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.launched_runs import several
from support.pictures import pictures
from support.short_runs import read_step, request

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config, ProverSection
from backtrack_mrt.data.signs import generate
from backtrack_mrt.env import EpisodeEnv, ProgressReward
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.runs.directory import OWN, RunDir
from backtrack_mrt.runs.lock import LOCK
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Problem, StopReason


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return assemble(read_request([]).config)


@pytest.mark.parametrize("algo", ["mrt-rl", "grpo"])
def test_a_run_leaves_everything(tmp_path: Path, algo: str) -> None:
    with pictures():
        result = train(request(tmp_path, algo=algo))
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name in ("base", "trained"):
        assert summary[name]["accuracy"]["n"] == 24
        assert 0 <= summary[name]["accuracy"]["low"] <= summary[name]["accuracy"]["high"] <= 1
        assert len(summary[name]["acc_at_turn"]) == 7
        assert summary[name]["normalised_regret"]["mean"] is not None
    assert summary["tokens"]["training"]["sampled"] > 0
    assert (summary["tokens"]["training"]["prover"] > 0) == (algo == "mrt-rl")
    assert result.base.accuracy.mean == summary["base"]["accuracy"]["mean"]
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in metrics)
    assert all(row["time/update"] > 0 and row["time/rollout"] > 0 for row in metrics)
    assert "Corrected itself" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures" / "acc_at_turn.png").stat().st_size > 10_000
    rollouts = read_step(RunDir(tmp_path), 2)
    assert all(s.weights is not None and len(s.weights) == len(s.trajectory.turns) for s in rollouts)
    assert (tmp_path / "model" / "adapter_model.safetensors").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {*OWN, LOCK}  # so --overwrite leaves nothing of it


@pytest.mark.parametrize(
    ("algo", "flags"),
    [
        ("rise", ("--env", "retry")),
        ("mrt-rl", ("--env", "open-ended")),
        ("mrt-rl", ("--env", "inline", "--algorithm.answer_weight", "0.1")),
        ("mrt-rl", ("--algorithm.credit", "prefix")),
        ("star", ("--env", "single")),
        ("star", ("--algorithm.rationalize", "true")),
    ],
)
def test_other_protocols_and_forms_train(tmp_path: Path, algo: str, flags: tuple[str, ...]) -> None:
    train(request(tmp_path, *flags, algo=algo))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "grad_norm" in row]
    assert steps
    assert any(row["grad_norm"] > 0 for row in steps)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["trained"]["clean_turns"]["mean"] > 0.9


def test_sft_learns_from_generated_demonstrations(tmp_path: Path) -> None:
    train(request(tmp_path, "--training.steps", "12", "--training.learning_rate", "1e-3", algo="sft"))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 12
    assert all(0 < loss < 1 for loss in losses)  # the base was built on such demonstrations


LONG = {"problem": {"id": "p", "question": "1) 2 3 = 5;", "answer": "++"}, "turns": [{"spans": [{"text": "1" * 99}]}]}


@pytest.mark.parametrize(
    ("flags", "rows", "told"),
    [
        (("--data.traces", "gone.jsonl"), "", "'gone.jsonl': cannot be read"),
        (("--data.traces", "some.jsonl"), "", "'some.jsonl': it holds no demonstration"),
        (("--data.traces", "some.jsonl"), '{"turns": []}\n', "'some.jsonl:1': not a demonstration"),
        (("--data.traces", "some.jsonl"), json.dumps(LONG) + "\n", "it has 100 tokens where the protocol leaves room"),
        (("--data.train", "words/base", "--grader", "exact"), "", "there are no generated demonstrations of words/"),
    ],
)
def test_bad_demonstrations_are_told_before_anything_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], rows: str, told: str
) -> None:
    (tmp_path / "some.jsonl").write_text(rows)
    monkeypatch.chdir(tmp_path)
    bad = request(tmp_path / "run", *flags, algo="sft")
    with pytest.raises(UserError) as raised:
        train(bad)
    assert told in str(raised.value)
    assert not (tmp_path / "run" / "config.yaml").exists()  # so it can be started again


def test_the_wrapper_gives_the_progress_of_the_batched_path(parts: Assembly) -> None:
    """Replaying a policy's completions through Gymnasium gives the same progress, turn by turn."""
    config: Config = parts.config
    problems = generate("validation", 6, seed=1)
    collector = parts.collector(config.protocol, with_values=True)
    scored = collector.collect(problems, trajectory_seeds(0, 0, len(problems)), 1.0).scored
    assert max(len(s.trajectory.turns) for s in scored) >= 4
    for s in scored:
        env = ProgressReward(
            EpisodeEnv(config.protocol, problems, prompts=parts.dialogue.prompts, chat=parts.dialogue.chat),
            parts.prover(),
        )
        env.reset(options={"problem": s.trajectory.problem})
        rewards = []
        for turn in s.trajectory.turns:
            _, reward, terminated, truncated, _ = env.step(turn.completion)  # type: ignore[arg-type]
            rewards.append(float(reward))
        assert terminated or truncated
        expected = s.progress.copy()
        expected[-1] += s.trajectory.outcome
        assert rewards == pytest.approx(expected.tolist(), abs=1e-4)


def test_likelihood_values_are_probabilities_of_the_gold_answer(parts: Assembly) -> None:
    """exp Σ log π(gold) by a plain forward over the forced prefix, without cache or tree mask."""
    problems = generate("validation", 4, seed=2)
    scored = parts.collector(parts.config.protocol, with_values=True).collect(problems, [1, 2, 3, 4], 1.0).scored
    for s in scored:
        gold = parts.dialogue.answer(s.trajectory.problem.answer)
        assert s.values is not None
        for j, value in enumerate(s.values):
            if j == len(s.trajectory.turns) and s.trajectory.stop is StopReason.VIOLATION:
                assert value == 0.0
                continue
            prefix = parts.dialogue.forced(s.trajectory, j)
            with torch.no_grad():
                logits = parts.model(torch.tensor([prefix + gold])).logits[0, len(prefix) - 1 : -1]
            logprobs = logits.log_softmax(-1).gather(1, torch.tensor(gold)[:, None])
            assert value == pytest.approx(float(logprobs.sum().exp()), abs=1e-4)


@pytest.mark.parametrize("estimator", ["likelihood", "monte_carlo"])
def test_a_trajectory_ends_before_the_context_does(
    parts: Assembly, monkeypatch: pytest.MonkeyPatch, estimator: Any
) -> None:
    """With `budget`, and with room for the meta-prover's answer; a prompt that fills the context has value 0."""
    monkeypatch.setattr(parts.engine, "context_length", 80)
    prover = parts.prover(ProverSection(estimator=estimator, samples=2, max_answer_tokens=4))
    collector = replace(parts.collector(parts.config.protocol, with_values=True), prover=prover)
    long = Problem("long", "x" * 100, "1")
    problems = [*generate("validation", 4, seed=2), long]
    *usual, hopeless = collector.collect(problems, [1, 2, 3, 4, 5], 1.0).scored
    for s in usual:
        trajectory, turns = s.trajectory, len(s.trajectory.turns)
        assert trajectory.stop is StopReason.BUDGET
        assert s.values is not None
        assert s.values.shape == (turns + 1,)
        assert len(trajectory.token_ids) + prover.reserve(trajectory.problem) <= 80
        assert all(len(parts.dialogue.forced(trajectory, j)) < 80 for j in range(turns + 1))
        assert estimator != "likelihood" or s.values.min() > 0, "every prefix is answered"
    assert any(s.trajectory.turns[-1].completion.finish == "length" for s in usual)
    assert (hopeless.trajectory.stop, hopeless.trajectory.turns) == (StopReason.BUDGET, ())
    assert hopeless.values is not None
    assert hopeless.values.tolist() == [0.0]


def test_the_budget_curriculum_grows_to_the_whole_budget(tmp_path: Path) -> None:
    train(request(tmp_path, "--training.first_budget", "0.25", "--training.saved_rollouts", "16"))
    longest = []
    for step in (1, 2, 3, 4):
        scored = read_step(RunDir(tmp_path), step)
        longest.append(max(s.trajectory.sampled_tokens for s in scored))
        assert longest[-1] <= 64 + (step - 1) * 48
    assert longest[-1] > 64


def test_the_budget_grows_in_stages_each_with_its_policy(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    flags = ("--training.budget_stages", "0.25", "1", "--training.saved_rollouts", "16")
    train(request(tmp_path, *flags, "--training.keep_checkpoints", "9"))
    longest = [max(s.trajectory.sampled_tokens for s in read_step(run, step)) for step in (1, 2, 3, 4)]
    assert max(longest[:2]) <= 64 < max(longest[2:])
    assert [path.name for path in sorted((tmp_path / "stages").iterdir())] == ["64"]
    kept = [path.name for path in sorted(run.checkpoints.iterdir())]
    assert kept == ["step_000002", "step_000004"]
    files = [folder / "adapter_model.safetensors" for folder in (tmp_path / "stages" / "64", run.model)]
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("1", "0.5"), "rise to 1"),
        (("0.5",), "rise to 1"),
        (("0.5", "1", "--training.first_budget", "0.5"), "two curricula"),
    ],
)
def test_a_curriculum_that_makes_no_sense_is_refused(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_request(["--training.budget_stages", *flags])


def test_protocol_at() -> None:
    stages = read_request(["--training.budget_stages", "0.25", "0.5", "1"]).config
    budgets = [stages.protocol_at(done).token_budget for done in (0, 0.3, 1 / 3, 0.6, 0.7, 1)]
    assert budgets == [64, 64, 128, 128, 256, 256]
    config = read_request(["--training.first_budget", "0.5"]).config
    assert [config.protocol_at(done).token_budget for done in (0, 0.5, 1, 2)] == [128, 192, 256, 256]


def test_rows_that_the_processes_cannot_share_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(3, monkeypatch)
    with pytest.raises(UserError, match="16 rows per update cannot be shared evenly by 3 processes"):
        train(request(tmp_path / "run"))


def test_a_used_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="in use"):
        train(request(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
