"""What one run came to: a sentence and a picture, before all else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backtrack_mrt.evaluation.compared_runs import efficiency
from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex, of_resamples, resampled_means
from backtrack_mrt.evaluation.metrics.turns import outcomes_by_answer
from backtrack_mrt.reports.archive import TraceSource
from backtrack_mrt.reports.charts import Chart, Series
from backtrack_mrt.reports.outcomes import summary_of
from backtrack_mrt.runs.finished import Run
from backtrack_mrt.types import FloatArray, Scored

SIDES = {"before": "base", "after": "trained"}


def headline(run: Run, found: Sequence[TraceSource]) -> dict[str, Any]:
    """The page's `headline` and `headline_charts` of a finished run with its trajectories."""
    traces = {source.name.removeprefix("evaluation_"): source.scored for source in found}
    answers = run.summary["trained_answers"]
    gain = paired_gain(traces.get("base", ()), traces.get("trained", ()), answers)
    before, after = (run.mean(side, "accuracy") for side in SIDES.values())
    interval = "" if math.isnan(gain.low) else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    told = f"{run.config.algo_label}: held-out accuracy {before:.3f} → {after:.3f}, "
    told += f"a gain of {after - before:+.3f}{interval}"
    if before > 0 and math.isfinite(ratio := efficiency(run)):
        told += f"; for the same accuracy the base needs {ratio:.2f} × the tokens"
    return {"headline": f"{told}.", "headline_charts": [_before_and_after(run)]}


def paired_gain(base: Sequence[Scored], trained: Sequence[Scored], answers: int) -> Estimate:
    """Accuracy of the trained trajectories − the base's after at most `answers` answers, over the problems that both
    have, with a bootstrap interval over them."""
    right = [_by_problem(scored, answers) for scored in (base, trained)]
    shared = [problem for problem in right[0] if problem in right[1]]
    gains_P1 = np.array([[right[1][problem] - right[0][problem]] for problem in shared]).reshape(-1, 1)
    if not shared:
        return of_resamples(math.nan, np.empty(0), 0, 0)
    return of_resamples(float(gains_P1.mean()), resampled_means(gains_P1)[:, 0], len(shared), len(trained))


def _by_problem(scored: Sequence[Scored], answers: int) -> dict[str, float]:
    if not scored:
        return {}
    index = ProblemIndex(scored)
    final_N: FloatArray = np.array([outcomes_by_answer(s.trajectory, answers)[-1] for s in scored])
    return dict(zip(index.ids, index.problem_means(final_N[:, None])[:, 0].tolist(), strict=True))


def _before_and_after(run: Run) -> Chart:
    """Bars: accuracy of first and of final answers, before and after."""
    sides = [summary_of(run.summary[side]) for side in SIDES.values()]
    series = [
        Series.of("first answer", [side.acc_at_turn[0] for side in sides]),
        Series.of("final answer", [side.accuracy for side in sides], colour=1),
    ]
    caption = "Held-out accuracy of first and of final answers at the trained limit, before and after training."
    named = ("before_and_after", "Before and after", caption)
    return Chart(*named, "", "accuracy", series, ticks=list(SIDES), bounds=(0, 1))
