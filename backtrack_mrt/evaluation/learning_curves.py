"""How fast algorithms learn: held-out results over the tokens that training has taken (`evaluation.every`), in either
ledger: the sampled ones, or all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from backtrack_mrt.config import Ledger
from backtrack_mrt.evaluation.metrics.budgets import tokens_to_reach
from backtrack_mrt.evaluation.metrics.estimates import over_seeds
from backtrack_mrt.evaluation.tables import Rows
from backtrack_mrt.runs.finished import Run, mean_of
from backtrack_mrt.types import FloatArray

STEP = 0.05  # between the accuracies at which curves are compared


def spent(run: Run, ledger: Ledger = "sampled") -> dict[int, float]:
    """Tokens taken up to each step. Self-training logs an iteration's where it begins to fit what it collected; runs
    that logged none took equal shares in their iterations. What samples nothing (sft) takes the same in all steps."""
    kinds = ("sampled",) if ledger == "sampled" else ("sampled", "env", "prover")
    logged = [sum(row.get(f"tokens/step_{kind}") or 0.0 for kind in kinds) for row in run.history]
    iterations = [float("iteration" in row) for row in run.history]
    costs = next((found for found in (logged, iterations) if any(found)), [1.0] * len(run.history))
    total = np.cumsum(costs) / (sum(costs) or 1.0) * run.tokens(ledger)
    return {row["step"]: float(tokens) for row, tokens in zip(run.history, total, strict=True)}


def learning_curve(run: Run, ledger: Ledger = "sampled", measure: str = "accuracy") -> tuple[FloatArray, FloatArray]:
    """Tokens taken in training, from 0, and what was measured on the held-out problems then, shape (P,) each. Policies
    change evenly between evaluations; that of self-training stays as it is while it collects, so its curve goes up in
    stairs."""
    at = {0: 0.0} | spent(run, ledger)
    tokens = np.array([at[line["step"]] for line in run.evaluations])
    found = np.array([mean_of(line[measure]) for line in run.evaluations])
    if any("iteration" in row for row in run.history):
        return np.repeat(tokens, 2)[1:], np.repeat(found, 2)[:-1]
    return tokens, found


def after(run: Run, tokens: float, measure: str = "accuracy") -> float:
    """The held-out measure after so many sampled tokens, by the learning curve; beyond the last evaluation it is taken
    to stay, and of several at these tokens the last one counts."""
    return float(np.interp(tokens, *learning_curve(run, measure=measure)))


def gain_after(run: Run, tokens: float) -> float:
    """Accuracy after so many sampled tokens − the base's."""
    return after(run, tokens) - after(run, 0)


def has_curves(runs: Mapping[str, Sequence[Run]]) -> bool:
    """Whether every run was evaluated while it trained."""
    every = [run for members in runs.values() for run in members]
    return all(any(line["name"].startswith("step_") for line in run.evaluations) for run in every)


def learning_rows(runs: Mapping[str, Sequence[Run]], ledger: Ledger = "sampled") -> Rows:
    """For accuracies above the base's: how many tokens an algorithm takes until it first has them, mean over the seeds
    that do, and as a multiple of the first algorithm's, paired by seed. Between evaluations accuracy is taken to rise
    evenly."""
    curves = {label: [learning_curve(run, ledger) for run in members] for label, members in runs.items()}
    levels = _levels([curve for several in curves.values() for curve in several])
    rows = [["algorithm", *(name for level in levels for name in (f"tokens to {level:.2f}", "×"))]]
    reference: list[list[float]] = []
    for label, several in curves.items():
        reached = [
            [float(tokens_to_reach(accuracy, tokens, level)[0]) for tokens, accuracy in several] for level in levels
        ]
        reference = reference or reached
        cells = [label]
        for ours, theirs in zip(reached, reference, strict=True):
            there = [tokens for tokens in ours if not math.isnan(tokens)]
            seeds = "" if len(there) == len(ours) else f" ({len(there)} of {len(ours)} seeds)"
            ratios = [a / b for a, b in zip(ours, theirs, strict=True) if not math.isnan(a / b)]
            cells += [f"{np.mean(there):,.0f}{seeds}" if there else "–", "" if ours is theirs else _times(ratios)]
        rows.append(cells)
    return rows


def ratio(ours: float, theirs: float) -> float:
    """Our gain as a multiple of theirs; NaN where they gained nothing."""
    return ours / theirs if theirs else math.nan


def budget_rows(runs: Mapping[str, Sequence[Run]], control: str, budgets: Sequence[int]) -> Rows:
    """For each budget of sampled tokens: the gain in accuracy, as a multiple of the control's (paired by seed), and the
    regret by one prover for all."""
    header = ["algorithm"]
    for budget in budgets:
        header += [f"gain after {budget:,}", f"÷ {control}'s", "regret, one prover"]
    rows = [header]
    for label, members in runs.items():
        cells = [label]
        for budget in budgets:
            gains = [gain_after(run, budget) for run in members]
            ratios = [ratio(ours, gain_after(run, budget)) for ours, run in zip(gains, runs[control], strict=True)]
            regrets = over_seeds([after(run, budget, "normalised_regret_frozen") for run in members])
            cells += [over_seeds(gains).told(), "" if label == control else _times(ratios), regrets.told()]
        rows.append(cells)
    return rows


def _levels(curves: Sequence[tuple[FloatArray, FloatArray]]) -> list[float]:
    """Multiples of `STEP` above what all start from, up to the highest that is reached."""
    start = max(accuracy[0] for _, accuracy in curves)
    end = max(accuracy.max() for _, accuracy in curves)
    return [round(k * STEP, 9) for k in range(math.floor(start / STEP + 1e-9) + 1, math.floor(end / STEP + 1e-9) + 1)]


def _times(ratios: Sequence[float]) -> str:
    return over_seeds(ratios).told(digits=2) if ratios else "–"
