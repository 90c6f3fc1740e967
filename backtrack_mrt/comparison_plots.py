"""The figures of a comparison: means over seeds, bands are 95 % Student intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backtrack_mrt.runs import Run, mean_of, over_seeds
from backtrack_mrt.types import FloatArray

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")  # Okabe and Ito
MARKS = "osD^vPX"  # told apart without colour, too
BASE = "#767676"
Runs = Mapping[str, Sequence[Run]]


def plot_all(runs: Runs, folder: Path) -> list[Path]:
    """accuracy, regret, acc_at_turn, progress and length, each as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = []
    for name, draw in FIGURES.items():
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        draw(axes, runs)
        axes.legend(fontsize="small")
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=150)
        plt.close(figure)
    return written


def accuracy_against_tokens(axes: Any, runs: Runs) -> None:
    """If every trajectory is cut at a budget: accuracy against the tokens then sampled."""
    for label, style, summaries in _sides(runs):
        curves = [summary["curve"] for summary in summaries]
        _band(axes, _means(curves, "tokens").mean(0), _means(curves, "accuracy"), label, style)
    axes.set(xlabel="sampled tokens per trajectory", ylabel="accuracy")


def regret_against_budget(axes: Any, runs: Runs) -> None:
    """Solid up to the trained budget, dashed beyond."""
    for label, style, summaries in _sides(runs):
        budgets = [float(budget) for budget in summaries[0]["regret"]]
        regrets = np.array([[mean_of(e) for e in summary["regret"].values()] for summary in summaries])
        known = [k for k, budget in enumerate(budgets) if budget <= summaries[0]["budget"]]
        beyond = [*known[-1:], *(k for k, budget in enumerate(budgets) if budget > summaries[0]["budget"])]
        _band(axes, np.array(budgets)[known], regrets[:, known], label, style)
        axes.plot(np.array(budgets)[beyond], regrets[:, beyond].mean(0), **style | {"ls": "--"})
    axes.axvline(summaries[0]["budget"], color="black", lw=0.8, ls=":")
    axes.set(xlabel="budget (sampled tokens); dotted: as trained", ylabel="normalised regret")


def accuracy_at_turn(axes: Any, runs: Runs) -> None:
    """Accuracy after each answer."""
    for label, style, summaries in _sides(runs):
        answers = np.array([[mean_of(e) for e in summary["acc_at_turn"]] for summary in summaries])
        _band(axes, np.arange(answers.shape[1], dtype=np.float64), answers, label, style)
    axes.axvline(next(iter(runs.values()))[0].summary["trained_revisions"], color="black", lw=0.8, ls=":")
    axes.set(xlabel="revisions allowed; dotted: as trained", ylabel="accuracy")


def progress_histogram(axes: Any, runs: Runs) -> None:
    """Share of the backtracks by their progress, from before the backtrack to after the revision."""
    for label, style, summaries in _sides(runs):
        edges = np.array(summaries[0]["progress_edges"])
        shares = np.array([[mean_of(e) for e in summary["progress_histogram"]] for summary in summaries])
        _band(axes, (edges[:-1] + edges[1:]) / 2, shares, label, style)
    axes.set(xlabel="progress of a backtrack with its revision", ylabel="share of the backtracks")
    axes.set_yscale("symlog", linthresh=0.01)


def length_over_training(axes: Any, runs: Runs) -> None:
    """Tokens per trajectory of the training rollouts, against the tokens sampled so far, of the first seed."""
    for (label, members), style in zip(runs.items(), _styles(len(runs)), strict=True):
        rows = [row for row in members[0].history if "tokens/sampled" in row]
        if rows:
            spent = np.linspace(0, members[0].sampled_tokens, len(rows))
            axes.plot(spent, [row["tokens/sampled"] for row in rows], label=label, **style)
    axes.set(xlabel="tokens sampled in training", ylabel="tokens per trajectory in training")


FIGURES: Mapping[str, Callable[[Any, Runs], None]] = {
    "accuracy": accuracy_against_tokens,
    "regret": regret_against_budget,
    "acc_at_turn": accuracy_at_turn,
    "progress": progress_histogram,
    "length": length_over_training,
}


def _sides(runs: Runs) -> list[tuple[str, dict[str, Any], list[Mapping[str, Any]]]]:
    """The base and every algorithm: label, line style, summaries by seed."""
    first = next(iter(runs.values()))
    sides: list[tuple[str, dict[str, Any], list[Mapping[str, Any]]]] = [
        ("base", {"color": BASE, "marker": ".", "ls": "-"}, [run.summary["base"] for run in first])
    ]
    for (label, members), style in zip(runs.items(), _styles(len(runs)), strict=True):
        sides.append((label, style, [run.summary["trained"] for run in members]))
    return sides


def _styles(n: int) -> list[dict[str, Any]]:
    return [{"color": COLOURS[i % 7], "marker": MARKS[i % 7], "ls": "-", "markersize": 4} for i in range(n)]


def _band(axes: Any, x: FloatArray, y_SX: FloatArray, label: str, style: Mapping[str, Any]) -> None:
    """Mean over the seeds (S) with its interval."""
    estimates = [over_seeds(column) for column in y_SX.T]
    axes.plot(x, [e.mean for e in estimates], label=label, **style)
    low, high = ([getattr(e, side) for e in estimates] for side in ("low", "high"))
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def _means(curves: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    """Means of a curve's estimates by seed, shape (S, X)."""
    return np.array([[mean_of(estimate) for estimate in curve[name]] for curve in curves])
