"""Held-out results of policies side by side in charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from backtrack_mrt.config import Ledger
from backtrack_mrt.evaluation.compared_runs import gain
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.learning_curves import after, has_curves
from backtrack_mrt.evaluation.metrics.estimates import Estimate, over_seeds
from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.evaluation.tables import Policy, pooled
from backtrack_mrt.reports.charts import Chart, Series

CURVE_POINTS = 9  # of a learning curve


def summary_of(data: Mapping[str, Any]) -> Summary:
    """A policy's part of summary.json."""
    return TypeAdapter(Summary).validate_python(_with_nan(data))


def _with_nan(data: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(data, Mapping):
        return {name: _with_nan(item) for name, item in data.items()}
    return [_with_nan(item) for item in data] if isinstance(data, list) else np.nan if data is None else data


def outcome_charts(policies: Sequence[Policy]) -> list[Chart]:
    """Those for which there are numbers."""
    charts = [
        accuracy(policies),
        acc_at_turn(policies),
        changed_answers(policies),
        value_by_turn(policies),
        regret(policies),
        regret(policies, frozen=True),
        *move_progress(policies),
    ]
    return [chart for chart in charts if any(np.isfinite(series.y).any() for series in chart.series)]


def headline_charts(comparison: Comparison) -> list[Chart]:
    """What a comparison begins with."""
    return [gains(comparison), *learning(comparison), *gradient_signal(comparison)]


def gains(comparison: Comparison) -> Chart:
    """Bars: what each algorithm has gained, in each ledger in which it was trained."""
    labels = list(comparison.runs)
    ledgers: dict[Ledger, str] = {"sampled": "at equal sampled tokens"}
    if comparison.equal_total:
        ledgers["total"] = "at equal tokens in all"
    series = [
        Series.of(told, [comparison.estimate(label, gain, ledger) for label in labels], colour=colour)
        for colour, (ledger, told) in enumerate(ledgers.items())
    ]
    return Chart(
        "gain",
        "What was gained",
        "Held-out accuracy after training − the base's, at the trained limit; with 95 % intervals over seeds.",
        "",
        "gain in accuracy",
        series,
        ticks=labels,
    )


def learning(comparison: Comparison) -> list[Chart]:
    """Held-out accuracy and regret against the tokens of training, where all runs were evaluated on the way."""
    if not has_curves(comparison.runs):
        return []
    end = max(run.sampled_tokens for members in comparison.runs.values() for run in members)
    tokens = np.linspace(0, end, CURVE_POINTS)
    measures = {"accuracy": "accuracy, at the trained limit", "normalised_regret_frozen": "regret, by one prover"}
    charts = []
    for measure, told in measures.items():
        lines = [
            Series.of(
                label, [over_seeds([after(run, spent, measure) for run in members]) for spent in tokens], tokens, i
            )
            for i, (label, members) in enumerate(comparison.runs.items())
        ]
        charts.append(
            Chart(
                f"learning_{'regret' if 'regret' in measure else measure}",
                f"How fast they learn: {told.partition(',')[0]}",
                "Held-out problems, evaluated while training; between evaluations a straight line.",
                "tokens sampled in training",
                told,
                [line for line in lines if np.isfinite(line.y).all()],  # a run without values has no regret
            )
        )
    return [chart for chart in charts if chart.series]


def gradient_signal(comparison: Comparison) -> list[Chart]:
    """Bars: how much of an update's gradient is signal, for the algorithms that measure it."""
    found = {label: [run.signal_to_noise for run in members] for label, members in comparison.runs.items()}
    found = {label: ratios for label, ratios in found.items() if np.isfinite(ratios).all()}
    if not found:
        return []
    return [
        Chart(
            "gradient_signal",
            "How quiet the gradient is",
            "Squared length of the mean gradient ÷ its squared noise, over all updates; between parts of a batch.",
            "",
            "signal : noise",
            [Series.of("all updates", [over_seeds(ratios) for ratios in found.values()])],
            ticks=list(found),
        )
    ]


def accuracy(policies: Sequence[Policy]) -> Chart:
    return Chart(
        "accuracy",
        "Accuracy against tokens",
        "Every trajectory is cut at a budget; its last answer by then counts. Higher, or further left, is better.",
        "sampled tokens per trajectory",
        "accuracy",
        _series(policies, lambda s: s.curve.accuracy, lambda s: [point.mean for point in s.curve.tokens]),
        bounds=(0, 1),
    )


def regret(policies: Sequence[Policy], frozen: bool = False) -> Chart:
    """By each policy's own values, or by those of the frozen base for all of them."""
    summary = policies[0].summaries[0]
    by = "By the values of the frozen base, one prover for all. " if frozen else ""
    return Chart(
        "regret_frozen" if frozen else "regret",
        f"Regret against budget{', one prover' if frozen else ''}",
        f"{by}The share of a budget's tokens that are spent without being sure of success: the area above V. Lower is "
        "better. Dashed: beyond the budget of training (dotted line).",
        "budget, sampled tokens",
        "normalised regret",
        _series(
            policies,
            lambda s: list((s.regret_frozen if frozen else s.regret).values()),
            lambda s: [float(budget) for budget in s.regret],
            solid_to=summary.budget,
        ),
        mark=summary.budget,
        bounds=(0, 1),
    )


def acc_at_turn(policies: Sequence[Policy]) -> Chart:
    return Chart(
        "acc_at_turn",
        "Accuracy by answers allowed (Acc@turn)",
        "How often the answer that stands is right, if the model may give so many. Dotted: as trained.",
        "answers allowed",
        "accuracy",
        _series(policies, lambda s: s.acc_at_turn, lambda s: list(range(1, len(s.acc_at_turn) + 1))),
        mark=policies[0].answers,
        bounds=(0, 1),
    )


def value_by_turn(policies: Sequence[Policy]) -> Chart:
    return Chart(
        "value_by_turn",
        "V by turn",
        "The chance of success if it had to answer after so many turns (0: at once). Where a trajectory has ended, its "
        "last one counts.",
        "turns taken",
        "V",
        _series(policies, lambda s: s.value_at_turn, lambda s: list(range(len(s.value_at_turn)))),
        bounds=(0, 1),
    )


def changed_answers(policies: Sequence[Policy]) -> Chart:
    """Bars: wrong → right upwards, right → wrong downwards."""
    kinds: tuple[tuple[str, float, Callable[[Summary], Estimate]], ...] = (
        ("wrong → right", 1.0, lambda s: s.wrong_to_right),
        ("right → wrong", -1.0, lambda s: s.right_to_wrong),
    )
    series = []
    for colour, (label, sign, found) in zip((2, 4), kinds, strict=True):
        estimates = [pooled([found(summary) for summary in policy.summaries]) for policy in policies]
        mean, *limits = sign * np.array([[e.mean, e.low, e.high] for e in estimates]).T
        low, high = np.clip(np.sort(limits, axis=0), -1, 1)  # Student's interval knows no bounds
        series.append(Series(label, np.arange(len(mean), dtype=np.float64), mean, low, high, colour))
    return Chart(
        "changed_answers",
        "What later answers did",
        "Share of the trajectories whose first answer was wrong and whose final one is right (up), and the other way "
        "round (down).",
        "",
        "share of the trajectories",
        series,
        ticks=[policy.label for policy in policies],
    )


def move_progress(policies: Sequence[Policy]) -> list[Chart]:
    """One for each kind of move that the protocol names."""
    edges = np.array(policies[0].summaries[0].progress_edges)
    middle = (edges[:-1] + edges[1:]) / 2
    return [
        Chart(
            f"progress_{name}",
            f"Progress: {name.replace('_', ' ')}",
            "How much a move of this name changed the chance of success, from before its first turn to after its last.",
            "progress, change of V",
            "share of the moves",
            _series(policies, lambda s, name=name: s.moves[name].histogram, lambda s: middle.tolist()),  # type: ignore[misc]
            symmetric_log=0.01,
            bounds=(0, 1),
        )
        for name in policies[0].summaries[0].moves
    ]


def _series(
    policies: Sequence[Policy],
    y: Callable[[Summary], Sequence[Estimate]],
    x: Callable[[Summary], Sequence[float]],
    solid_to: float = np.inf,
) -> list[Series]:
    """A line per policy, the first in grey, without points that are not known; x is the mean over the seeds."""
    found = []
    for place, policy in enumerate(policies):
        estimates = [pooled(column) for column in zip(*map(y, policy.summaries), strict=True)]
        where = np.mean([x(summary) for summary in policy.summaries], axis=0)
        known = np.array([np.isfinite(estimate.mean) for estimate in estimates], dtype=bool)
        if known.any():
            told = [estimate for estimate in estimates if np.isfinite(estimate.mean)]
            line = Series.of(policy.label, told, where[known], place - 1 if place else None)
            found.append(replace(line, solid_to=solid_to))
    return found
