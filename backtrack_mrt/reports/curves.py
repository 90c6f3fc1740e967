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


@dataclass
class Curve:
    """What a chart shows. `metric` is a name in metrics.jsonl (that of the chart, if none is given), or a family of
    names that ends with a slash or an underscore, which gives a line each; `without` are members of the family that are
    left out. `counted`: rollouts in which it did not occur do not log it, which is 0."""

    name: str
    caption: str
    y_label: str
    metric: str = ""
    title: str = ""  # where it is not the name
    without: tuple[str, ...] = ()
    counted: bool = False

    def __post_init__(self) -> None:
        self.metric = self.metric or self.name
        self.title = self.title or self.name.replace("_", " ").capitalize()


OUTCOME = Curve("outcome", "Share of the training rollouts that end with a right answer.", "outcome", title="Reward")
UPDATE = (  # what the updates do, and whether there is anything to learn from
    Curve("entropy", "Of the sampling distribution, mean over the tokens.", "nats"),
    Curve("gradient", "Of the update, before it is clipped.", "norm", "grad_norm", title="Gradient norm"),
    Curve(
        "clipped",
        "Share of the tokens whose probability ratio was clipped in the update.",
        "share",
        "clip_ratio/region_mean",
        title="Clip share",
    ),
    Curve("learning_rate", "Of the update.", "learning rate"),
    Curve(
        "without_signal",
        "Share of the groups in which no turn has a weight: they teach nothing.",
        "share",
        "groups/without_signal",
        title="Groups without signal",
    ),
)
ONE = (  # of one run; a family's lines are told apart by their names
    OUTCOME,
    Curve("loss", "As the trainer reports it.", "loss"),
    Curve("progress_by_phase", "Mean change of V over the turns of a phase.", "progress", "progress/phase_"),
    Curve(
        "value_by_phase",
        "Mean V after the turns of a phase: the chance of success if it had to answer.",
        "V",
        "value/phase_",
    ),
    Curve("length", "Tokens per trajectory.", "tokens", "tokens/", without=("step_sampled", "step_env", "step_prover")),
    Curve(
        "violations", "Share of the trajectories that broke the protocol, by rule.", "share", "violation/", counted=True
    ),
    Curve("stops", "Share of the trajectories.", "share", "stop/", title="Why trajectories ended"),
    Curve("verdicts", "On the final answers.", "share", "grader/", title="Grader verdicts"),
    Curve("time", "Wall time of a step.", "seconds", "time/", title="Time by part", without=("step",)),
    *UPDATE,
    Curve(
        "logprob_gap",
        "Between the engine that samples and the trainer, for the same tokens: 0 if they are the same program.",
        "|difference|",
        "sampling/sampling_logp_difference/",
        title="Log-probability gap",
    ),
)
SEVERAL = (  # of several runs, a line each
    OUTCOME,
    Curve("length", "Sampled tokens per trajectory in training.", "tokens", "tokens/sampled"),
    Curve("loss", "As the trainer reports it; losses of different algorithms are different things.", "loss"),
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
            series = []
            for place, (label, run) in enumerate(runs.items()):
                series += _line(label, run.history, curve.metric, place, spent(run))
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


def _lines(curve: Curve, rows: History) -> list[Series]:
    if not curve.metric.endswith(("/", "_")):
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
