"""The evaluation's further rollouts on the embedded model, and `backtrack-mrt evaluate`."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command_line import command

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import first_wrong_step, generate
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.evaluate import measure
from backtrack_mrt.evaluation.metrics.summary import Cuts, Summary, summarise
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.runs.jsonl import plain_json
from backtrack_mrt.types import TokenLedger


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def measured(kept: Path) -> tuple[Summary, TokenLedger]:
    return measured_in(kept)


def measured_in(kept: Path) -> tuple[Summary, TokenLedger]:
    """Everything, on five problems with two samples each."""
    flags = [
        *("--evaluation.samples", "2", "--evaluation.extra_rounds", "1"),
        *("--evaluation.linearised_revisions", "1.4", "--evaluation.window", "2", "--evaluation.forced_answers", "2"),
    ]
    config = read_request(flags).config
    collector = assemble(config).collector(config.protocol, with_values=True)
    return measure(config, collector, generate("validation", 5, seed=3), first_wrong_step, "tiny", kept)


def test_further_rollouts(measured: tuple[Summary, TokenLedger], kept: Path) -> None:
    summary, ledger = measured
    extras = summary.extras
    assert summary.accuracy.n == 10
    assert len(summary.maj_at_k) == 2
    assert list(extras.forced_rounds) == ["1"]
    forced = extras.forced_rounds["1"]
    assert forced.accuracy.n == forced.value.n == 10
    assert forced.regret.keys() == summary.regret.keys()
    assert [regret.n for regret in forced.regret.values()] == [10] * len(summary.regret)
    assert forced.regret["64"].mean == pytest.approx(summary.regret["64"].mean, abs=1e-4), (
        "nothing is forced before the first end"
    )
    assert len(extras.linearised) == 5  # 1.4 × 3 revisions, and the attempt
    assert len(extras.majority_at_turn) == 11
    assert extras.majority_at_turn[0].tokens.mean == 0
    assert extras.majority_at_turn[1].tokens.mean == summary.tokens_at_turn[1].mean
    assert sorted(path.name for path in kept.glob("*.jsonl")) == [
        "evaluation_tiny.jsonl",
        "evaluation_tiny_linearised.jsonl",
        "evaluation_tiny_rounds_1.jsonl",
    ]
    assert ledger.sampled > summary.tokens.mean * 10
    assert ledger.prover > 0
    for budget, official in summary.regret_official.items():
        assert official.mean > summary.regret[budget].mean  # the prompt costs, and the curve starts at 0


def test_what_is_there_is_read_and_its_tokens_count(measured: tuple[Summary, TokenLedger], kept: Path) -> None:
    """As after a kill between the rollouts and their results."""
    again = measured_in(kept)
    assert again[1] == measured[1]
    assert plain_json(asdict(again[0])) == plain_json(asdict(measured[0]))


def test_damaged_tokens_are_a_mistake_of_one_line(
    measured: tuple[Summary, TokenLedger], kept: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(kept, tmp_path / "kept")
    (copied / "evaluation_tiny.json").write_text('{"sampled": "many"}')
    with pytest.raises(UserError, match=r"evaluation_tiny\.json = .*sampled = 'many'.*Delete it"):
        measured_in(copied)


def test_trajectories_are_analysed_without_a_model(
    measured: tuple[Summary, TokenLedger], kept: Path, tmp_path: Path
) -> None:
    traces = kept / "evaluation_tiny.jsonl"
    done = command("evaluate", "--traces", traces, "--against", traces, "--config", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "final accuracy (as trained)" in done.stdout
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["summary"]["accuracy"]["mean"] == measured[0].accuracy.mean
    assert found["summary"]["regret"]["256"]["mean"] == pytest.approx(measured[0].regret["256"].mean)
    assert all(ratio["mean"] == 1 for ratio in found["against"]["token_efficiency"].values())


def test_trajectories_of_another_program(tmp_path: Path) -> None:
    """As in docs/formats.md."""
    turns = [{"text": "I get \\boxed{3}", "tokens": 40}, {"answer": "2", "tokens": 25}]
    record = {"problem": {"id": "a", "question": "1 + 1?", "answer": "2"}, "turns": turns}
    (tmp_path / "mine.jsonl").write_text(json.dumps(record) + "\n")
    done = command("evaluate", "--traces", "mine.jsonl", "--out", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "too few problems for an interval" in done.stdout
    summary = json.loads((tmp_path / "found.json").read_text())["summary"]
    assert [at["mean"] for at in summary["acc_at_turn"]] == [0, 1]
    assert summary["wrong_to_right"] == {"mean": 1, "low": None, "high": None, "n": 1}
    assert summary["tokens"]["mean"] == 65


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate"),
        (["tiny", "--against", "x.jsonl"], "nothing to hold against it"),
        (["--traces", "none.jsonl"], "cannot be read"),
        (["no-such-model"], "no such directory"),
        (["tiny", "--evaluation.budget", "1"], "Did you mean 'evaluation.budgets'"),
        (["tiny", "--evaluation.budgets", "-1"], "greater than 0"),
        (["tiny", "--out", "no/such/folder.json"], "does not exist"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = command("evaluate", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_evaluating_reads_no_training_set(tmp_path: Path) -> None:
    """Only held-out problems are needed, and only they are read."""
    flags = ["--data.train", "gone.jsonl", "--data.eval_size", "2", "--prover.estimator", "none"]
    done = command("evaluate", "tiny", "--algo", "grpo", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "evaluation.json").read_text())["summary"]["accuracy"]["n"] == 2


def test_one_prover_for_all_policies() -> None:
    """A policy that has moved is also measured by the base: what the base's own meta-prover says of its turns."""
    config = read_request([]).config
    parts = assemble(config)
    with torch.no_grad():
        for name, weights in parts.model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    problems = generate("validation", 3, seed=3)
    scored = parts.evaluation_collector().collect(problems, [1, 2, 3], 1.0).scored
    trajectories = [s.trajectory for s in scored]
    by_base = assemble(config).prover().values(trajectories)
    for s, expected in zip(scored, by_base, strict=True):
        assert s.values is not None
        assert s.frozen_values is not None
        assert np.abs(s.values - expected).max() > 0.01
        np.testing.assert_allclose(s.frozen_values, expected, atol=1e-5)
    (mine,) = parts.evaluation_collector(base=True).collect(problems[:1], [1], 1.0).scored
    assert mine.frozen_values is mine.values
    summary = summarise(scored, Cuts.found(scored))
    assert summary.normalised_regret_frozen.mean != summary.normalised_regret.mean
    off = read_request(["--evaluation.frozen_prover", "false"]).config
    assert replace(parts, config=off).evaluation_collector().frozen is None
