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
    charts = [chart(policies) for chart in (accuracy, acc_at_turn, changed_answers, value_by_turn, regret)]
    charts += [regret(policies, frozen=True), *move_progress(policies)]
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
    caption = "Held-out accuracy after training − the base's, at the trained limit; with 95 % intervals over seeds."
    return Chart("gain", "What was gained", caption, "", "gain in accuracy", series, ticks=labels)


def learning(comparison: Comparison) -> list[Chart]:
    """Held-out accuracy and regret against the tokens of training, where all runs were evaluated on the way."""
    if not has_curves(comparison.runs):
        return []
    end = max(run.sampled_tokens for members in comparison.runs.values() for run in members)
    tokens = np.linspace(0, end, CURVE_POINTS)
    measures = {"accuracy": "accuracy, at the trained limit", "normalised_regret_frozen": "regret, by one prover"}
    caption = "Held-out problems, evaluated while training; between evaluations a straight line."
    charts = []
    for measure, told in measures.items():
        lines = []
        for colour, (label, members) in enumerate(comparison.runs.items()):
            found = [over_seeds([after(run, spent, measure) for run in members]) for spent in tokens]
            lines.append(Series.of(label, found, tokens, colour))
        lines = [line for line in lines if np.isfinite(line.y).all()]  # a run without values has no regret
        kind = told.partition(",")[0]
        title, x_label = f"How fast they learn: {kind}", "tokens sampled in training"
        charts.append(Chart(f"learning_{kind}", title, caption, x_label, told, lines))
    return [chart for chart in charts if chart.series]


def gradient_signal(comparison: Comparison) -> list[Chart]:
    """Bars: how much of an update's gradient is signal, for the algorithms that measure it."""
    found = {label: [run.signal_to_noise for run in members] for label, members in comparison.runs.items()}
    found = {label: ratios for label, ratios in found.items() if np.isfinite(ratios).all()}
    if not found:
        return []
    caption = "Squared length of the mean gradient ÷ its squared noise, over all updates; between parts of a batch."
    bars = [Series.of("all updates", [over_seeds(ratios) for ratios in found.values()])]
    title, y_label = "How quiet the gradient is", "signal : noise"
    return [Chart("gradient_signal", title, caption, "", y_label, bars, ticks=list(found))]


def accuracy(policies: Sequence[Policy]) -> Chart:
    title, x_label = "Accuracy against tokens", "sampled tokens per trajectory"
    caption = "Every trajectory is cut at a budget; its last answer by then counts. Higher, or further left, is better."
    series = _series(policies, lambda s: s.curve.accuracy, lambda s: [point.mean for point in s.curve.tokens])
    return Chart("accuracy", title, caption, x_label, "accuracy", series, bounds=(0, 1))


def regret(policies: Sequence[Policy], frozen: bool = False) -> Chart:
    """By each policy's own values, or by those of the frozen base for all of them."""
    summary = policies[0].summaries[0]
    name, title, by = "regret", "Regret against budget", ""
    if frozen:
        name, title = "regret_frozen", f"{title}, one prover"
        by = "By the values of the frozen base, one prover for all. "
    caption = (
        f"{by}The share of a budget's tokens that are spent without being sure of success: the area above V. Lower is "
        "better. Dashed: beyond the budget of training (dotted line)."
    )
    series = _series(
        policies,
        lambda s: list((s.regret_frozen if frozen else s.regret).values()),
        lambda s: [float(budget) for budget in s.regret],
        solid_to=summary.budget,
    )
    labels = ("budget, sampled tokens", "normalised regret")
    return Chart(name, title, caption, *labels, series, mark=summary.budget, bounds=(0, 1))


def acc_at_turn(policies: Sequence[Policy]) -> Chart:
    title, labels = "Accuracy by answers allowed (Acc@turn)", ("answers allowed", "accuracy")
    caption = "How often the answer that stands is right, if the model may give so many. Dotted: as trained."
    series = _series(policies, lambda s: s.acc_at_turn, lambda s: list(range(1, len(s.acc_at_turn) + 1)))
    return Chart("acc_at_turn", title, caption, *labels, series, mark=policies[0].answers, bounds=(0, 1))


def value_by_turn(policies: Sequence[Policy]) -> Chart:
    caption = (
        "The chance of success if it had to answer after so many turns (0: at once). Where a trajectory has ended, its "
        "last one counts."
    )
    series = _series(policies, lambda s: s.value_at_turn, lambda s: list(range(len(s.value_at_turn))))
    return Chart("value_by_turn", "V by turn", caption, "turns taken", "V", series, bounds=(0, 1))


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
    title, y_label, ticks = "What later answers did", "share of the trajectories", [policy.label for policy in policies]
    caption = (
        "Share of the trajectories whose first answer was wrong and whose final one is right (above 0), and the other "
        "way round (below)."
    )
    return Chart("changed_answers", title, caption, "", y_label, series, ticks=ticks)


def move_progress(policies: Sequence[Policy]) -> list[Chart]:
    """One for each kind of move that the protocol names."""
    edges = np.array(policies[0].summaries[0].progress_edges)
    middle = ((edges[:-1] + edges[1:]) / 2).tolist()
    labels = ("progress, change of V", "share of the moves")
    caption = (
        "How much a move of this name changed the chance of success, from before its first turn to after its last."
    )
    charts = []
    for name in policies[0].summaries[0].moves:
        series = _series(policies, lambda s, name=name: s.moves[name].histogram, lambda s: middle)  # type: ignore[misc]
        named = (f"progress_{name}", f"Progress: {name.replace('_', ' ')}")
        charts.append(Chart(*named, caption, *labels, series, symmetric_log=0.01, bounds=(0, 1)))
    return charts


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
