"""The seam to TRL: gradients against hand-written REINFORCE, on a random Llama of a few thousand weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fixed_rollouts import ENGINE_LOGPROB, FixedCollector, make_config, make_model, make_setup
from transformers import TrainerCallback

from backtrack_mrt.policy.models import with_adapter
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.training.mismatch import truncated_importance
from backtrack_mrt.training.rl import PolicyTrainer
from backtrack_mrt.training.supervised import CrossEntropyTrainer, weighted_row
from backtrack_mrt.types import (
    FloatArray,
    Group,
    Problem,
    Scored,
    Trajectory,
)


class KeepGradient(TrainerCallback):  # type: ignore[misc]
    """The gradient of the last update, before the optimiser sees it, and the weights then."""

    gradient: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]

    def on_pre_optimizer_step(
        self, args: object, state: object, control: object, *, model: torch.nn.Module, **_: object
    ) -> None:
        self.gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained_gradient(tmp_path: Path, collector: FixedCollector, *flags: str) -> dict[str, torch.Tensor]:
    """The gradient of one update with the project's trainer."""
    return last_update(tmp_path, collector, *flags).gradient


def last_update(tmp_path: Path, collector: FixedCollector, *flags: str) -> KeepGradient:
    setup = make_setup(tmp_path, *flags)
    trainer = PolicyTrainer(setup, problems=collector.problems, collector=cast(Collector, collector))
    keep = KeepGradient()
    trainer.add_callback(keep)
    trainer.fit()
    return keep


def reinforce_gradient(
    collector: FixedCollector,
    weights: Callable[[Group], list[FloatArray]],
    cap: float | None = None,
    policy: torch.nn.Module | None = None,
) -> dict[str, torch.Tensor]:
    """−∇ Σ min(r·w_{i,j}, clip(r, 0.8, 1.2)·w_{i,j}) / number of sampled tokens, r = π(token) / π_old(token), one row
    at a time and without padding; without a `policy` it is π_old, and so this −∇ Σ w_{i,j} log π(token). With a `cap`,
    each token has the importance weight min(π_old / π_engine, cap)."""
    model: Any = policy or make_model()
    old = make_model()
    trajectories = [s.trajectory for rows in collector.scored.values() for s in rows]
    tokens = sum(j >= 0 for trajectory in trajectories for j in trajectory.turn_index())
    for problem in collector.problems:
        members = tuple(collector.scored[problem.id])
        for member, turn_weights in zip(members, weights(Group(problem, members)), strict=True):
            ids = torch.tensor([member.trajectory.token_ids])
            logprobs, before = (
                m(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0] for m in (model, old)
            )
            prompt = len(member.trajectory.prompt_ids)
            for position, turn in enumerate(member.trajectory.turn_index(), start=prompt):
                if turn >= 0:
                    drew = before[position - 1].detach()
                    weight = turn_weights[turn] * (1.0 if cap is None else (drew - ENGINE_LOGPROB).exp().clamp(max=cap))
                    r = (logprobs[position - 1] - drew).exp()
                    (-torch.minimum(r * weight, r.clamp(0.8, 1.2) * weight) / tokens).backward(retain_graph=True)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm of `theirs`."""
    a, b = (torch.cat([g[name].flatten() for name in sorted(theirs)]) for g in (ours, theirs))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("micro_batch", ["8", "2"])
@pytest.mark.parametrize("credit", ["turn", "return_to_go"])
def test_gradient_is_reinforce(tmp_path: Path, credit: str, micro_batch: str) -> None:
    flags = ("--algo", "mrt-rl", "--algorithm.credit", credit, "--training.micro_batch_size", micro_batch)
    collector = FixedCollector()
    algorithm = make_config(tmp_path, *flags).algorithm
    ours = trained_gradient(tmp_path, collector, *flags)
    assert difference(ours, reinforce_gradient(collector, algorithm.turn_weights)) < 1e-5


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("micro_batch", ["8", "2"])
def test_a_later_update_on_a_batch_is_clipped(tmp_path: Path, micro_batch: str, exact: bool) -> None:
    """What another engine's logprobs correct are the weights of the policy that drew the batch."""
    flags = ("--algo", "mrt-rl", "--training.epochs", "2", "--training.learning_rate", "0.02")
    collector = FixedCollector()
    collector.exact = exact
    algorithm = make_config(tmp_path, *flags).algorithm
    ours = last_update(tmp_path, collector, *flags, "--training.micro_batch_size", micro_batch)
    (policy := make_model()).load_state_dict(ours.weights)
    weights, cap = algorithm.turn_weights, None if exact else 3.0
    assert difference(ours.gradient, reinforce_gradient(collector, weights, cap, policy)) < 1e-5
    assert difference(ours.gradient, reinforce_gradient(collector, weights, cap)) > 0.05
    (logged,) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert 0.1 < logged["clip_ratio/region_mean"] < 0.9


def test_given_turns_have_no_gradient(tmp_path: Path) -> None:
    """Rows that were branched off a shared prefix are trained on what they sampled themselves."""
    branched, whole = FixedCollector(given=1), FixedCollector()
    algorithm = make_config(tmp_path, "--algo", "grpo").algorithm
    ours = trained_gradient(tmp_path, branched, "--algo", "grpo")
    assert difference(ours, reinforce_gradient(branched, algorithm.turn_weights)) < 1e-5
    assert difference(ours, reinforce_gradient(whole, algorithm.turn_weights)) > 0.05


@pytest.mark.parametrize("micro_batch", ["8", "2"])
def test_gradient_is_corrected_for_another_engine_s_logprobs(
    tmp_path: Path, micro_batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token-level truncated importance weights, some of them at the cap, in the loss's own forward pass."""
    passes, scored = [], PolicyTrainer._get_per_token_logps_and_entropies

    def counted(*args: Any, **settings: Any) -> Any:
        passes.append(args)
        return scored(*args, **settings)

    monkeypatch.setattr(PolicyTrainer, "_get_per_token_logps_and_entropies", counted)
    flags = ("--algo", "mrt-rl", "--training.importance_cap", "1.3", "--training.micro_batch_size", micro_batch)
    collector = FixedCollector()
    collector.exact = False
    algorithm = make_config(tmp_path, *flags).algorithm
    ours = trained_gradient(tmp_path, collector, *flags)
    assert len(passes) == 8 // int(micro_batch)
    assert difference(ours, reinforce_gradient(collector, algorithm.turn_weights, cap=1.3)) < 1e-5
    assert difference(ours, reinforce_gradient(collector, algorithm.turn_weights, cap=9.0)) > 1e-3
    (logged,) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert 0.1 < logged["sampling/sampling_logp_difference/mean"] < logged["sampling/sampling_logp_difference/max"] < 2
    ratio = [logged[f"sampling/importance_sampling_ratio/{part}"] for part in ("min", "mean", "max")]
    assert 0 < ratio[0] < ratio[1] < ratio[2] == pytest.approx(1.3)


@given(st.data(), st.floats(1, 10))
def test_truncated_importance(data: st.DataObject, cap: float) -> None:
    """min(ratio, cap) on sampled tokens, 1 elsewhere and where the engine gave no number."""
    logprob = st.lists(st.floats(-20, 0, width=32), min_size=6, max_size=6)
    trainer, engine = (torch.tensor(data.draw(logprob)).reshape(2, 3) for _ in range(2))
    sampled = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=6, max_size=6))).reshape(2, 3)
    engine[0, 0] = torch.nan
    weights = truncated_importance(trainer, engine, sampled, cap)
    for i, j in np.ndindex(2, 3):
        known = bool(sampled[i, j]) and (i, j) != (0, 0)
        expected = np.exp(min(float(trainer[i, j] - engine[i, j]), 50)) if known else 1.0
        assert float(weights[i, j]) == pytest.approx(min(expected, cap), rel=1e-4)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("micro_batch", ["8", "2"])
def test_weighted_cross_entropy(tmp_path: Path, micro_batch: str, packs: bool) -> None:
    """Σ w·−log π over the number of tokens with weight, however the rows are split, packed or padded."""
    collector = FixedCollector()
    trajectories = [s.trajectory for rows in collector.scored.values() for s in rows]
    rng = np.random.default_rng(1)
    turn_weights = [rng.integers(0, 3, len(t.turns)).astype(float) for t in trajectories]
    rows = [weighted_row(Scored(t, weights=w)) for t, w in zip(trajectories, turn_weights, strict=True)]
    flags = ("--algo", "star", "--training.problems_per_step", "8", "--training.micro_batch_size", micro_batch)
    trainer = CrossEntropyTrainer(make_setup(tmp_path, *flags), rows=rows, epochs=1)
    assert trainer.packs
    trainer.packs = packs
    keep = KeepGradient()
    trainer.add_callback(keep)
    trainer.fit()
    model, count = make_model(), sum(weight > 0 for row in rows for weight in row["weights"])
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        (-(torch.tensor(row["weights"])[1:] * logprobs).sum() / count).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert difference(keep.gradient, expected) < 1e-5


def test_alpha_zero_has_the_gradient_of_grpo(tmp_path: Path) -> None:
    collector = FixedCollector()
    mrt = trained_gradient(tmp_path, collector, "--algo", "mrt-rl", "--algorithm.alpha", "0")
    grpo = trained_gradient(tmp_path, collector, "--algo", "grpo")
    assert all(torch.equal(mrt[name], grpo[name]) for name in grpo)
    other = trained_gradient(tmp_path, collector, "--algo", "mrt-rl", "--algorithm.alpha", "1")
    assert difference(other, grpo) > 0.1


@pytest.mark.parametrize("full", ["true", "false"])
@pytest.mark.parametrize("micro_batch", ["8", "2"])
def test_the_kl_is_to_the_policy_before_training(tmp_path: Path, full: str, micro_batch: str) -> None:
    """What the second update logs, by hand: the mean of p/π − log p/π − 1 over the sampled tokens. (TRL logs the mean
    of the micro-batches' means: with several, that is another one.)"""
    collector = FixedCollector()

    def trained(steps: int) -> tuple[Any, list[dict[str, float]]]:
        setup = make_setup(
            tmp_path / str(steps),
            *("--algo", "grpo", "--training.kl", "0.1", "--training.micro_batch_size", micro_batch),
            *("--model.full_finetuning", full, "--training.steps", str(steps), "--training.learning_rate", "0.01"),
        )
        if full == "false":
            setup = replace(setup, model=with_adapter(setup.model, setup.config.model, seed=0))
        trainer = PolicyTrainer(setup, problems=collector.problems * steps, collector=cast(Collector, collector))
        trainer.fit()
        return setup.model, setup.run.metrics()

    def logprobs(model: Any, trajectory: Trajectory) -> torch.Tensor:
        """Of the sampled tokens."""
        ids, sampled = torch.tensor([trajectory.token_ids]), torch.tensor(trajectory.turn_index()) >= 0
        found = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return cast(torch.Tensor, found[-len(sampled) :][sampled])

    model, (first,) = trained(1)
    assert first["kl"] == 0
    with torch.no_grad():
        rows = [s.trajectory for scored in collector.scored.values() for s in scored]
        gap = torch.cat([logprobs(make_model(), row) - logprobs(model, row) for row in rows])
    _, (_, second) = trained(2)
    assert second["kl"] > 1e-3
    assert second["kl"] == pytest.approx(float((gap.exp() - gap - 1).mean()), rel=1e-3 if micro_batch == "8" else 0.3)


def test_one_turn_weight_moves_exactly_that_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tokens of the turn with weight enter the gradient; instruction tokens never do."""
    from backtrack_mrt.algos.grpo import Grpo

    def one_hot(self: Grpo, group: Group) -> list[FloatArray]:
        weights = [np.zeros(len(member.trajectory.turns)) for member in group.members]
        if group.problem.id == "pp":
            weights[2][1] = 1.0
        return weights

    monkeypatch.setattr(Grpo, "turn_weights", one_hot)
    collector = FixedCollector()
    ours = trained_gradient(tmp_path, collector, "--algo", "grpo")
    assert difference(ours, reinforce_gradient(collector, lambda group: one_hot(Grpo(), group))) < 1e-5
    turn = collector.scored["pp"][2].trajectory.turns[1]
    rows = ours["lm_head.weight"].abs().sum(1)
    # The sampled tokens' logits move against all others.
    assert rows[list(turn.completion.token_ids)].min() > rows.median()


def test_token_weights_cover_sampled_tokens_only() -> None:
    for first in (0, 1):
        for trajectory in (s.trajectory for s in FixedCollector(first).scored["p"]):
            scored = Scored(trajectory, weights=np.arange(1.0, len(trajectory.turns) + 1))
            expected = [0.0 if j < 0 else j + 1.0 for j in trajectory.turn_index()]
            np.testing.assert_array_equal(scored.token_weights(), expected)
    assert Scored(Trajectory(Problem("p", "?", "1"), (1,)), weights=np.zeros(0)).token_weights().shape == (0,)
    with pytest.raises(ValueError, match="no algorithm"):
        Scored(trajectory).token_weights()
