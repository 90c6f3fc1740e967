"""MRT in TRL's own trainer, on an environment that is not ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from support.documents import blocks
from support.fake_completions_server import CompletionsServer
from support.lake import WAYS, Lake, ScriptedTurns, nearness, settings, small_model, walked, won
from trl import GRPOTrainer

import backtrack_mrt as bt
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Group, Problem, Scored, Trajectory

pytestmark = pytest.mark.usefixtures("no_reports")

QUESTION = [{"role": "user", "content": "Cross the lake."}]
ROWS = Dataset.from_list([{"prompt": QUESTION, "answer": "15"}])
OUTCOMES = (1.0, 1.0, 0.0, 0.0)


async def later(trajectories: list[Trajectory]) -> None:
    """What nobody awaits."""


@pytest.fixture
def trainer(tmp_path: Path, request: pytest.FixtureRequest) -> bt.MRTTrainer:
    """With TRL's `rollout_func`."""
    model, tokenizer = small_model()
    given = {"values": nearness, **getattr(request, "param", {})}
    args = settings(tmp_path, **given.pop("args", {}))
    return bt.MRTTrainer(model, won, args, ROWS, processing_class=tokenizer, rollout_func=walked, **given)


def advantages(trainer: bt.MRTTrainer) -> torch.Tensor:
    trainer.model.train()
    return trainer._generate_and_score_completions([dict(ROWS[0]) for _ in range(4)])["advantages"]


def ours(trajectories: list[Trajectory], values: Any, algorithm: MrtRl) -> list[np.ndarray]:
    """What this project's own training makes of the episodes."""
    graded = [Scored(replace(t, outcome=r), v) for t, r, v in zip(trajectories, OUTCOMES, values, strict=True)]
    weights = algorithm.turn_weights(Group(Problem("p", "", ""), tuple(graded)))
    return [replace(s, weights=w).token_weights() for s, w in zip(graded, weights, strict=True)]


def check(trainer: bt.MRTTrainer, found_BT: torch.Tensor, algorithm: MrtRl) -> None:
    expected = ours(trainer.latest_trajectories, trainer.latest_values, algorithm)
    for row, own in zip(found_BT.numpy(), expected, strict=True):
        np.testing.assert_allclose(row[: len(own)], own, atol=1e-6)
        assert not row[len(own) :].any()


@pytest.mark.parametrize(
    ("trainer", "algorithm"),
    [
        ({}, MrtRl()),
        ({"settings": {"alpha": 0.5, "credit": "return_to_go"}}, MrtRl(alpha=0.5, credit="return_to_go")),
        ({"algo": "mrt-rl", "args": {"scale_rewards": "group"}}, MrtRl(scale_outcome=True)),
        ({"algo": MrtRl(credit="gae", baseline="value")}, MrtRl(credit="gae", baseline="value")),
    ],
    indirect=["trainer"],
)
def test_advantages_are_ours(trainer: bt.MRTTrainer, algorithm: MrtRl) -> None:
    found_BT = advantages(trainer)
    assert [len(t.turns) for t in trainer.latest_trajectories] == [len(way) for way in WAYS.values()]
    assert [turn.text for turn in trainer.latest_trajectories[0].turns] == WAYS[0]
    check(trainer, found_BT, algorithm)


@pytest.mark.parametrize("trainer", [{"algo": "grpo"}], indirect=True)
def test_grpo_is_trls(trainer: bt.MRTTrainer) -> None:
    rows = advantages(trainer)
    mask = rows != 0
    assert [set(row[kept].tolist()) for row, kept in zip(rows, mask, strict=True)] == [{0.5}, {0.5}, {-0.5}, {-0.5}]


def test_it_trains(trainer: bt.MRTTrainer) -> None:
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert any((p != q).any() for p, q in zip(trainer.model.parameters(), before, strict=True))
    (logged,) = [row for row in trainer.state.log_history if "mrt/turns" in row]
    assert logged["mrt/turns"] == np.mean([len(way) for way in WAYS.values()])
    assert logged["mrt/value/first"] == 0.0


def lake_trainer(tmp_path: Path, **given: Any) -> bt.MRTTrainer:
    """With TRL's `environment_factory`; the policy itself says what its prefixes are worth."""
    model, tokenizer = small_model()
    trainer = bt.MRTTrainer(
        model, None, settings(tmp_path), ROWS, processing_class=tokenizer, environment_factory=Lake, **given
    )
    trainer._generate_single_turn = ScriptedTurns(tokenizer)  # type: ignore[method-assign]
    return trainer


def test_an_environment_factory(tmp_path: Path) -> None:
    trainer = lake_trainer(tmp_path)
    found_BT = advantages(trainer)
    assert [len(t.turns) for t in trainer.latest_trajectories] == [len(way) + 1 for way in WAYS.values()]
    assert all("direction" in turn.text for turn in trainer.latest_trajectories[0].turns[:-1])
    assert all(len(set(row)) > 1 for row in trainer.latest_values)
    check(trainer, found_BT, MrtRl())


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "text"])
def test_the_same_by_a_server(tmp_path: Path, ids: bool) -> None:
    """The policy served by somebody, asked through OpenAI's completions."""
    own = lake_trainer(tmp_path)
    found_BT = advantages(own)
    model, tokenizer = small_model()
    with CompletionsServer(model.eval(), tokenizer, ids=ids).running() as server:
        prover = bt.credit.served_prover(server.url, tokenizer)
        assert prover.engine.speaks_ids is ids  # type: ignore[attr-defined]
        served = lake_trainer(tmp_path, values=prover.values)
        torch.testing.assert_close(advantages(served), found_BT, atol=1e-6 if ids else 2e-3, rtol=0)


@pytest.mark.parametrize("given", [None, [[[0.5]] * 9, "x"], [torch.ones(7, requires_grad=True)] * 4])
def test_values_are_numbers(tmp_path: Path, given: Any) -> None:
    with pytest.raises(UserError, match=r"values = .*not arrays of numbers\. Return V_0 … V_E of each"):
        advantages(lake_trainer(tmp_path, values=lambda trajectories: given))


@pytest.mark.parametrize("offsets", [None, [10**6], [2.5], [3, 3], [0]])
def test_cuts_are_offsets(tmp_path: Path, offsets: Any) -> None:
    with pytest.raises(UserError, match=r"cuts = .*no increasing offsets into a text of"):
        advantages(lake_trainer(tmp_path, values=nearness, cuts=lambda text: offsets))


@pytest.mark.parametrize(
    "row",
    [
        {"answer": 15},
        {"answer": ["15"]},
        {"answer": "So many.\n#### 15"},
        {"answer": "", "solution": r"So \boxed{15}."},
    ],
)
def test_golds_are_read_as_those_of_files(trainer: bt.MRTTrainer, row: dict[str, Any]) -> None:
    assert trainer._problem({"prompt": QUESTION, **row}).answer == "15"
    assert trainer._problem({"prompt": QUESTION, "answer": None}).answer == ""


def test_what_is_sampled_in_one_go_can_be_cut(tmp_path: Path) -> None:
    trainer = lake_trainer(tmp_path, cuts=lambda text: [5], values=nearness)
    advantages(trainer)
    assert [len(t.turns) for t in trainer.latest_trajectories] == [2 * len(way) + 2 for way in WAYS.values()]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"settings": {"alhpa": 1}}, "Did you mean 'alpha'"),
        ({"algo": "mtr-rl"}, "Did you mean 'mrt-rl'"),
        ({"args": {"scale_rewards": "batch"}}, "compared within its group"),
        ({"algo": MrtRl}, "neither a name nor a path"),
        ({"settings": {"values": "stated"}}, "no answers are graded on the way"),
        ({"values": "monte_carlo"}, "not a function from episodes"),
        ({"values": later}, "not a function from episodes"),
        ({"train_dataset": ROWS.rename_column("answer", "truth")}, r"'truth'\]: no column holds the answer"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, given: dict[str, Any], reason: str) -> None:
    model, tokenizer = small_model()
    args = settings(tmp_path, **given.pop("args", {}))
    with pytest.raises(UserError, match=reason):
        bt.MRTTrainer(
            model, won, args, processing_class=tokenizer, rollout_func=walked, **{"train_dataset": ROWS} | given
        )


@pytest.mark.parametrize("document", ["README.md", "docs/trainers.md"])
def test_the_documents_ten_lines(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, but with a small model and a CPU's settings."""
    (block,) = [block for block in blocks(document, "python") if "MRTTrainer" in block]
    assert len([line for line in block.splitlines() if line]) <= 11
    model, tokenizer = small_model()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("trl.GRPOConfig", lambda folder, **said: settings(tmp_path / folder, **said))
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", ScriptedTurns(tokenizer))
    said = {"Lake": Lake}
    exec(block.replace("Qwen/Qwen3-0.6B", str(tmp_path / "model")), said)
    assert len(said["trainer"].latest_trajectories[0].turns) == len(WAYS[0]) + 1  # type: ignore[attr-defined]


def test_the_credit_of_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("docs/trainers.md", "python")[0], {})
    assert "0.8" in capsys.readouterr().out


def test_without_a_gold_the_policy_cannot_be_asked(tmp_path: Path) -> None:
    model, tokenizer = small_model()
    rows = Dataset.from_list([{"prompt": QUESTION, "answer": ""}])
    trainer = bt.MRTTrainer(model, won, settings(tmp_path), rows, processing_class=tokenizer, rollout_func=walked)
    trainer.model.train()
    with pytest.raises(UserError, match="column 'answer'"):
        trainer._generate_and_score_completions([dict(rows[0]) for _ in range(4)])
