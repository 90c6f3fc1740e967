"""Learning curves in the report of a comparison."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from backtrack_mrt.reports.outcomes import gradient_signal, learning
from backtrack_mrt.runs.finished import Run


def run(accuracies: list[float], regret: float | None, every: bool = True) -> Run:
    """Evaluated before, between and after two updates of 100 tokens."""
    history = [{"step": step, "tokens/step_sampled": 100.0} for step in (1, 2)]
    lines: list[dict[str, Any]] = [
        {"step": step, "name": name, "accuracy": {"mean": mean}, "normalised_regret_frozen": {"mean": regret}}
        for step, (name, mean) in enumerate(zip(("base", "step_000001", "trained"), accuracies, strict=True))
    ]
    summary = {"tokens": {"training": {"sampled": 200}}}
    return Run(Path("run"), cast(Any, None), summary, history, lines if every else lines[::2])


def drawn(**runs: list[Run]) -> Any:
    return cast(Any, SimpleNamespace(runs=runs))


def test_accuracy_and_regret_are_means_over_seeds() -> None:
    seeds = [run([0.5, 0.6, 0.7], 0.3), run([0.5, 0.7, 0.9], 0.3)]
    accuracy, regret = learning(drawn(grpo=seeds))
    (line,) = accuracy.series
    assert (line.x[0], line.x[-1]) == (0, 200)
    assert line.y[[0, 4, -1]] == pytest.approx([0.5, 0.65, 0.8])
    assert np.allclose(regret.series[0].y, 0.3)
    assert [chart.svg()[:4] for chart in (accuracy, regret)] == ["<svg"] * 2


def test_without_values_there_is_no_regret_and_without_evaluations_no_curve() -> None:
    assert [chart.name for chart in learning(drawn(grpo=[run([0.5, 0.6, 0.7], None)]))] == ["learning_accuracy"]
    assert learning(drawn(grpo=[run([0.5, 0.6, 0.7], 0.3, every=False)])) == []
    assert gradient_signal(drawn(grpo=[run([0.5, 0.6, 0.7], 0.3)])) == []
