"""Tokens until an accuracy is reached, over seeds and as a multiple of the reference's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backtrack_mrt.evaluation.learning_curves import (
    after,
    budget_rows,
    gain_after,
    has_curves,
    learning_curve,
    learning_rows,
    spent,
)
from backtrack_mrt.runs.finished import Run


def run(accuracies: list[float], tokens_a_step: float = 100.0, logged: bool = True) -> Run:
    """Evaluated after 0, 2, 4, … updates."""
    steps = 2 * (len(accuracies) - 1)
    costs = {"tokens/step_sampled": tokens_a_step, "tokens/step_prover": tokens_a_step / 2} if logged else {}
    history: list[dict[str, Any]] = [{"step": step} | costs for step in range(1, steps + 1)]
    names = ["base", *(f"step_{step:06d}" for step in range(2, steps, 2)), "trained"]
    evaluations = [
        {
            "step": 2 * k,
            "name": name,
            "accuracy": {"mean": accuracy, "n": 100},
            "normalised_regret_frozen": {"mean": 1 - accuracy, "n": 100},
        }
        for k, (name, accuracy) in enumerate(zip(names, accuracies, strict=True))
    ]
    training = {"sampled": tokens_a_step * steps, "total": 1.5 * tokens_a_step * steps}
    summary = {"tokens": {"training": training}}
    return Run(Path("run"), SimpleNamespace(), summary, history, evaluations)  # type: ignore[arg-type]


@pytest.mark.parametrize("logged", [True, False])  # sft logs the tokens of no step
def test_a_curve_begins_with_the_base_at_no_tokens(logged: bool) -> None:
    tokens, accuracy = learning_curve(run([0.5, 0.6, 0.7], logged=logged))
    assert tokens.tolist() == [0, 200, 400]
    assert accuracy.tolist() == [0.5, 0.6, 0.7]
    assert learning_curve(run([0.5, 0.6, 0.7], logged=logged), "total")[0].tolist() == [0, 300, 600]


@pytest.mark.parametrize("logged", [True, False])  # as runs before it was logged
def test_self_training_has_sampled_before_it_learns(logged: bool) -> None:
    """Two iterations of 300 and 100 tokens, with two updates each, all evaluated; the second begins anew."""
    one = run([0.5, 0.6])
    tokens = [300.0, 100.0] if logged else [200.0, 200.0]
    collected: list[dict[str, Any]] = [{"step": 1 + 2 * k, "iteration": k + 1} for k in range(2)]
    for row, sampled in zip(collected, tokens, strict=True):
        row |= {"tokens/step_sampled": sampled} if logged else {}
    history = [collected[0], {"step": 1}, {"step": 2}, collected[1], {"step": 3}, {"step": 4}]
    names = ("base", "step_000001", "step_000002", "step_000003", "trained")
    accuracies = zip(names, (0.5, 0.6, 0.7, 0.55, 0.8), strict=True)
    evaluations = [{"step": k, "name": name, "accuracy": {"mean": a}} for k, (name, a) in enumerate(accuracies)]
    summary = {"tokens": {"training": {"sampled": 400}}}
    one = replace(one, history=history, evaluations=evaluations, summary=summary)
    first = tokens[0]
    assert spent(one) == {1: first, 2: first, 3: 400, 4: 400}
    assert [after(one, at) for at in (0, first - 1, first, 399, 400)] == [0.5, 0.5, 0.7, 0.7, 0.8]
    reached = learning_rows({"rise": [one]})[1]
    assert reached[1::2] == [f"{first:,.0f}"] * 4 + ["400", "400"]


def test_tokens_to_an_accuracy_and_their_ratio() -> None:
    fast, slow = [run([0.5, 0.6, 0.7])] * 2, [run([0.5, 0.55, 0.6]), run([0.5, 0.52, 0.54])]
    header, ours, theirs = learning_rows({"mrt-rl": fast, "grpo": slow})
    assert header == [
        "algorithm",
        *(name for level in ("0.55", "0.60", "0.65", "0.70") for name in (f"tokens to {level}", "×")),
    ]
    assert ours == ["mrt-rl", "100", "", "200", "", "300", "", "400", ""]
    # The second seed of grpo never gets to .55: the first alone is compared.
    assert theirs == ["grpo", "200 (1 of 2 seeds)", "2.00", "400 (1 of 2 seeds)", "2.00", "–", "–", "–", "–"]


def test_an_interval_needs_two_seeds_that_reach_it() -> None:
    fast, slow = run([0.5, 0.6]), run([0.5, 0.55, 0.6])
    _, _, theirs = learning_rows({"mrt-rl": [fast, fast], "grpo": [slow, run([0.5, 0.52, 0.55, 0.6])]})
    assert theirs[3:5] == ["500", "2.50 [-3.85, 8.85]"]
    assert np.isclose(np.mean([400 / 200, 600 / 200]), 2.5)


def test_runs_that_were_only_evaluated_at_the_ends_have_no_curve() -> None:
    assert has_curves({"mrt-rl": [run([0.5, 0.6, 0.7])]})
    assert not has_curves({"mrt-rl": [run([0.5, 0.6, 0.7])], "grpo": [run([0.5, 0.7])]})


def test_at_a_budget_between_two_evaluations() -> None:
    one = run([0.5, 0.6, 0.7])
    assert [after(one, tokens) for tokens in (0, 100, 300, 900)] == pytest.approx([0.5, 0.55, 0.65, 0.7])
    assert gain_after(one, 300) == pytest.approx(0.15)


def test_gains_at_two_budgets_as_multiples_of_the_control_s() -> None:
    fast, slow = [run([0.5, 0.6, 0.7]), run([0.5, 0.7, 0.7])], [run([0.5, 0.55, 0.6])] * 2
    header, ours, theirs = budget_rows({"mrt-rl": fast, "grpo": slow}, "grpo", (200, 400))
    assert header[1:4] == ["gain after 200", "÷ grpo's", "regret, one prover"]
    assert ours[2] == "3.00 [-9.71, 15.71]"  # 2 and 4
    assert ours[5] == "2.00 [2.00, 2.00]"
    assert ours[3].startswith("0.350 ")
    assert theirs[2] == theirs[5] == ""
    _, alone, _ = budget_rows({"mrt-rl": fast[:1], "grpo": slow[:1]}, "grpo", (200,))
    assert alone == ["mrt-rl", "0.100", "2.00", "0.400"]  # one seed has no interval
