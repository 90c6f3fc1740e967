"""Charts over training, read off metrics.jsonl and evaluations.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtrack_mrt.evaluation.learning_curves import spent
from backtrack_mrt.reports.charts import Chart, Series
from backtrack_mrt.runs.finished import Run

History = Sequence[Mapping[str, Any]]  # rows of metrics.jsonl or evaluations.jsonl


@dataclass(frozen=True)
class TrainingCurve:
    """What a chart shows. `metric` is a name in metrics.jsonl, or a family of names that ends with a slash or an
    underscore, which gives a line each; `without` are members of the family that are left out. `counted`: rollouts in
    which it did not occur do not log it, which is 0."""

    name: str
    title: str
    caption: str
    y_label: str
    metric: str
    without: tuple[str, ...] = ()
    counted: bool = False

    @property
    def family(self) -> bool:
        return self.metric.endswith(("/", "_"))


OUTCOME = TrainingCurve(
    "outcome", "Reward", "Share of the training rollouts that end with a right answer.", "outcome", "outcome"
)
UPDATE = (  # what the updates do, and whether there is anything to learn from
    TrainingCurve("entropy", "Entropy", "Of the sampling distribution, mean over the tokens.", "nats", "entropy"),
    TrainingCurve("gradient", "Gradient norm", "Of the update, before it is clipped.", "norm", "grad_norm"),
    TrainingCurve(
        "clipped",
        "Clip share",
        "Share of the tokens whose probability ratio was clipped in the update.",
        "share",
        "clip_ratio/region_mean",
    ),
    TrainingCurve("learning_rate", "Learning rate", "Of the update.", "learning rate", "learning_rate"),
    TrainingCurve(
        "without_signal",
        "Groups without signal",
        "Share of the groups in which no turn has a weight: they teach nothing.",
        "share",
        "groups/without_signal",
    ),
)
ONE = (  # of one run; a family's lines are told apart by their names
    OUTCOME,
    TrainingCurve("loss", "Loss", "As the trainer reports it.", "loss", "loss"),
    TrainingCurve(
        "progress_by_phase",
        "Progress by phase",
        "Mean change of V over the turns of a phase.",
        "progress",
        "progress/phase_",
    ),
    TrainingCurve(
        "value_by_phase",
        "Value by phase",
        "Mean V after the turns of a phase: the chance of success if it had to answer.",
        "V",
        "value/phase_",
    ),
    TrainingCurve(
        "length", "Length", "Tokens per trajectory.", "tokens", "tokens/", ("step_sampled", "step_env", "step_prover")
    ),
    TrainingCurve(
        "violations",
        "Violations",
        "Share of the trajectories that broke the protocol, by rule.",
        "share",
        "violation/",
        counted=True,
    ),
    TrainingCurve("stops", "Why trajectories ended", "Share of the trajectories.", "share", "stop/"),
    TrainingCurve("verdicts", "Grader verdicts", "On the final answers.", "share", "grader/"),
    TrainingCurve("time", "Time by part", "Wall time of a step.", "seconds", "time/", ("step",)),
    *UPDATE,
    TrainingCurve(
        "logprob_gap",
        "Log-probability gap",
        "Between the engine that samples and the trainer, for the same tokens: 0 if they are the same program.",
        "|difference|",
        "sampling/sampling_logp_difference/",
    ),
)
SEVERAL = (  # of several runs, a line each
    OUTCOME,
    TrainingCurve("length", "Length", "Sampled tokens per trajectory in training.", "tokens", "tokens/sampled"),
    TrainingCurve(
        "loss",
        "Loss",
        "As the trainer reports it; losses of different algorithms are different things.",
        "loss",
        "loss",
    ),
    *UPDATE,
)

HELD_OUT = (  # name in summary.json, title, caption, axis
    ("accuracy", "Held-out accuracy", "At the limits that were trained, 95 % intervals over problems.", "accuracy"),
    ("tokens", "Held-out length", "Sampled tokens per trajectory, 95 % intervals over problems.", "tokens"),
    ("normalised_regret", "Held-out regret", "At the trained budget, 95 % intervals over problems.", "regret"),
)


def training_charts(runs: Mapping[str, Run]) -> list[Chart]:
    """Over the steps of one run, or over the tokens that several have sampled; without what was not logged."""
    first, *others = runs.values()
    charts = held_out_charts(runs)
    for curve in SEVERAL if others else ONE:
        if others:
            by_run = [
                _line(label, run.history, curve.metric, i, spent(run)) for i, (label, run) in enumerate(runs.items())
            ]
            series = [line for lines in by_run for line in lines]
        else:
            series = _lines(curve, first.history)
        x_label = "tokens sampled in training" if others else "step"
        if series:
            charts.append(Chart(f"training_{curve.name}", curve.title, curve.caption, x_label, curve.y_label, series))
    return charts


def held_out_charts(runs: Mapping[str, Run]) -> list[Chart]:
    """The held-out results, where there are any from while the runs trained."""
    if not any(line["name"].startswith("step_") for run in runs.values() for line in run.evaluations):
        return []
    several = len(runs) > 1
    x_label = "tokens sampled in training" if several else "step"
    charts = []
    for metric, title, caption, y_label in HELD_OUT:
        series = []
        for place, (label, run) in enumerate(runs.items()):
            at = {0: 0.0} | (spent(run) if several else {line["step"]: float(line["step"]) for line in run.evaluations})
            found = [line for line in run.evaluations if line[metric]["n"]]
            x = np.array([at[line["step"]] for line in found])
            y, low, high = (np.array([line[metric][k] for line in found], float) for k in ("mean", "low", "high"))
            if found:
                series.append(Series(label if several else y_label, x, y, low, high, colour=place))
        if series:
            charts.append(Chart(f"held_out_{metric}", title, caption, x_label, y_label, series))
    return charts


def _lines(curve: TrainingCurve, rows: History) -> list[Series]:
    if not curve.family:
        return _line(curve.y_label, rows, curve.metric, 0)
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(curve.metric))
    if curve.counted:
        rows = [{**dict.fromkeys(names, 0.0), **row} if "outcome" in row else row for row in rows]
    members = [member for name in names if (member := name.removeprefix(curve.metric)) not in curve.without]
    lines = [_line(member, rows, curve.metric + member, place) for place, member in enumerate(members)]
    return [line for found in lines for line in found if line.y.any()]  # what never happened is no line


def _line(label: str, rows: History, metric: str, place: int, at: Mapping[int, float] | None = None) -> list[Series]:
    points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    if not points:
        return []
    x = np.array([float(step) if at is None else at[step] for step, _ in points])
    return [Series(label, x, np.array([float(y) for _, y in points]), colour=place)]
