"""The report of a thinking audit: one file to pass on, with every trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.evaluation.tables import Rows
from backtrack_mrt.evaluation.thinking import ALL, Thinking, Thresholds
from backtrack_mrt.reports.archive import TraceSource
from backtrack_mrt.reports.build import page
from backtrack_mrt.reports.charts import Chart, Series
from backtrack_mrt.runs.durable import replacing
from backtrack_mrt.types import FloatArray, Scored


def thinking_table(found: Mapping[str, Thinking], thresholds: Thresholds) -> Rows:
    """A row per number, a column per problem set."""
    sets = list(found.values())
    high = f"V ≥ {thresholds.high:g}"
    told = [
        ("problems, trajectories", [f"{t.problems}, {t.summary.accuracy.n}" for t in sets]),
        ("accuracy", [str(t.summary.accuracy) for t in sets]),
        ("sampled tokens", [str(t.summary.tokens) for t in sets]),
        ("normalised regret (budget)", [f"{t.summary.normalised_regret} ({t.summary.budget})" for t in sets]),
        ("cumulative regret", [str(t.summary.cumulative_regret) for t in sets]),
        (f"sure at some time ({high})", [str(t.sure) for t in sets]),
        ("overthinking tax: tokens after that", [str(t.overthinking) for t in sets]),
        ("  as a share of all tokens", [str(t.overthinking_share) for t in sets]),
        (f"starved: stopped while V rose by ≥ {thresholds.rising:g}", [str(t.starved) for t in sets]),
        ("  last rise of those", [str(t.last_rise) for t in sets]),
        ("right → wrong: sure, then ended wrong", [str(t.lost) for t in sets]),
        ("right → wrong: first answer, final answer", [str(t.summary.right_to_wrong) for t in sets]),
    ]
    return [["", *found], *([name, *cells] for name, cells in told)]


def votes_table(found: Mapping[str, Thinking], p: int) -> Rows:
    """[maj@p]_j against going on, of the last set (all together)."""
    thinking = list(found.values())[-1]
    summary = thinking.summary
    rows = [["stop after turn", "tokens", "one answer (V)", f"majority of {p}", "going on to the end"]]
    end = f"{summary.accuracy_prolonged.mean:.3f}"
    for j, point in enumerate(summary.extras.majority_at_turn):
        one = str(summary.value_at_turn[j])
        rows.append([str(j or "none"), f"{point.tokens.mean:.1f}", one, str(point.accuracy), end])
    return rows


def thinking_charts(found: Mapping[str, Thinking], p: int) -> list[Chart]:
    """V against tokens by set; votes against going on; what is wasted, missed and lost."""
    value = [
        Series.of(name, t.summary.curve.value, _means(t.summary.curve.tokens), colour=None if name == ALL else i)
        for i, (name, t) in enumerate(found.items())
    ]
    caption = "V against the tokens spent. Where it is flat, thinking on bought nothing."
    named = ("value", "What an answer now would be worth", caption)
    charts = [Chart(*named, "sampled tokens", "V", value, bounds=(0, 1))]
    places = np.arange(len(found), dtype=np.float64)
    bars = [
        Series("tokens spent when sure", places, _means([t.overthinking_share for t in found.values()])),
        Series("starved", places, _means([t.starved for t in found.values()]), colour=1),
        Series("right → wrong", places, _means([t.lost for t in found.values()]), colour=2),
    ]
    caption = "Shares of the tokens (first) and of the trajectories, by problem set."
    charts.append(Chart("waste", "Wasted, missed, lost", caption, "problem set", "share", bars, ticks=list(found)))
    thinking = list(found.values())[-1]
    points = thinking.summary.extras.majority_at_turn
    if points:
        tokens = _means([point.tokens for point in points])
        lines = [
            Series("one answer (V)", tokens, _means(thinking.summary.value_at_turn)),
            Series(f"majority of {p}", tokens, _means([point.accuracy for point in points]), colour=1),
            Series(
                "going on to the end", tokens, _means([thinking.summary.accuracy_prolonged] * len(points)), colour=2
            ),
        ]
        caption = "Stop after j turns and answer once, or vote over forced answers; the line is where going on ends."
        named = ("votes", "Votes against going on", caption)
        charts.append(Chart(*named, "sampled tokens", "right", lines, bounds=(0, 1)))
    return charts


def _means(estimates: Sequence[Estimate]) -> FloatArray:
    return np.array([estimate.mean for estimate in estimates])


def report_thinking(
    found: Mapping[str, Thinking], scored: Sequence[Scored], thresholds: Thresholds, p: int, title: str, out: Path
) -> None:
    """Write the page."""
    outcomes = [(thinking_table(found, thresholds), "By problem set, 95 % intervals over problems")]
    if list(found.values())[-1].summary.extras.majority_at_turn:
        outcomes.append((votes_table(found, p), "[maj@p]_j: stop after j turns and vote, or go on"))
    content = {"outcomes": outcomes, "outcome_charts": thinking_charts(found, p), "training_charts": []}
    lines = [f"{len(scored):,} trajectories. An answer is as good as sure from V = {thresholds.high:g} on."]
    with replacing(out) as file:
        file.write(page(f"Thinking audit: {title}", lines, content, [TraceSource("traces", title, scored)], []))
