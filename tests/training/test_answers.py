"""Forced answers trained along: the gradient of V, scored on the trajectory's own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.short_runs import request
from training.test_rl import KeepGradient

from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.rollouts.prover import LikelihoodProver
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training import answers
from backtrack_mrt.training.answers import AnswerMaker, chances_within
from backtrack_mrt.training.rl import PolicyTrainer
from backtrack_mrt.training.trainer_setup import Setup
from backtrack_mrt.types import Scored, StopReason

Gradient = dict[str, torch.Tensor]
FLAGS = ("--training.steps", "1", "--training.warmup_ratio", "0", "--training.max_grad_norm", "1e9")


def parts_of(folder: Path, *flags: str) -> Assembly:
    """The embedded model with an adapter that is not zero."""
    parts = assemble(request(folder, *FLAGS, *flags).config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in parts.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01, generator=generator)
    return parts


def trained(folder: Path, beta: float, *flags: str) -> tuple[Gradient, list[Scored], Assembly]:
    """The gradient of one update, and what it was made of."""
    parts = parts_of(folder, "--algorithm.answer_weight", str(beta), *flags)
    config = parts.config
    problems = load_problem_sets(config.data, batch=4).train
    run = RunDir.create(config, "overwrite")
    trainer = PolicyTrainer(
        Setup(parts.model, parts.tokenizer, config, run),
        problems=problems[: config.training.problems_per_step],
        collector=parts.training_collector(),
    )
    keep = KeepGradient()
    trainer.add_callback(keep)
    trainer.fit()
    return keep.gradient, trainer._everyone, parts_of(folder)


def naive(parts: Assembly, scored: list[Scored], beta: float, by_row: bool) -> Gradient:
    """−β·∇Σ V_j at the ends of turns, every spelling of every answer as a row of its own."""
    prover, model = parts.prover(), parts.model
    assert isinstance(prover, LikelihoodProver)
    sampled = [t.sampled_tokens for t in (s.trajectory for s in scored)]
    for member, tokens in zip(scored, sampled, strict=True):
        trajectory = member.trajectory
        for j in range(1, len(trajectory.turns) + 1 - (trajectory.stop is StopReason.VIOLATION)):
            forced, value = parts.dialogue.forced(trajectory, j), torch.zeros(())
            for spelling in prover.spellings(trajectory.problem):
                ids = torch.tensor([forced + spelling.ids])
                logprobs = model(ids).logits[0, len(forced) - 1 : -1].log_softmax(-1)
                body = logprobs[range(len(spelling.ids) - 1), spelling.ids[:-1]].sum()
                value = value + body.exp() * logprobs[-1, list(spelling.endings)].exp().sum()
            assert value.item() == pytest.approx(float(member.values[j]), abs=1e-4)
            (-beta * value / (len(scored) * tokens if by_row else sum(sampled))).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_answers_branch_off_the_trajectories_with_the_gradient_of_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """All of them are trained: what is added to the gradient is β·∇V within 1e-5."""
    monkeypatch.setattr(answers, "SHARE", 10.0)
    flags = ("--training.loss", loss)
    without, _, _ = trained(tmp_path / "without", 0.0, *flags)
    with_, scored, parts = trained(tmp_path / "with", 2.0, *flags)
    expected = naive(parts, scored, 2.0, by_row=loss == "grpo")
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for name, theirs in expected.items():
        torch.testing.assert_close(with_[name] - without[name], theirs, rtol=1e-4, atol=1e-5)


def test_answers_take_their_share_of_the_tokens_and_weigh_the_inverse_of_their_chance(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    collector = parts.training_collector()
    problems = [p for p in load_problem_sets(parts.config.data, batch=4).train[:4] for _ in range(4)]
    scored = collector.collect(problems, list(range(16)), temperature=1.0).scored
    maker = AnswerMaker(parts.dialogue, answers.Speller(parts.dialogue), 10**6)
    everything = [maker.answers(member.trajectory) for member in scored]
    total, spent = np.zeros(len(scored)), 0
    for seed in range(400):
        drawn = maker.drawn(scored, (seed,))
        total += [sum(answer.weight for answer in row) for row in drawn]
        spent += sum(answer.tokens for row in drawn for answer in row)
    trajectories = [m.trajectory for m in scored]
    room = answers.SHARE * sum(len(t.token_ids) - len(t.prompt_ids) for t in trajectories)
    assert spent / 400 == pytest.approx(room, rel=0.05)
    sampled = sum(t.sampled_tokens for t in trajectories)
    assert total.sum() / 400 == pytest.approx(sum(map(len, everything)) / sampled, rel=0.05)


@given(
    st.floats(0, 200),
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 0.26)), min_size=1, max_size=30),
)
def test_chances_use_up_the_room(room: float, asked: list[tuple[int, float]]) -> None:
    tokens, sizes = np.array(asked, dtype=np.float64).T
    chances = chances_within(room, tokens, sizes)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (chances * tokens).sum() == pytest.approx(min(room, tokens.sum()))
    order = np.argsort(sizes)
    assert (np.diff(chances[order]) >= -1e-9).all()
