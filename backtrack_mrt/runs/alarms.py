"""What a run's log says is going wrong, one line each with its remedy.

A rule looks at the rows of metrics.jsonl so far and says what is wrong, or None. It compares the last `WINDOW` rows
that have a metric, with the first ones where a change is meant: a single step is too noisy. Rows of evaluations (names
that begin with ``eval/``) count as rows, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.jsonl import read_whole
from backtrack_mrt.runs.processes import main_only, tell
from backtrack_mrt.types import Scored

Row = Mapping[str, Any]

WINDOW = 8  # rows that a rule looks at
UNDONE = 0.02  # final accuracy this much below the first attempt's
DRIFT = 0.03  # V after right ends this much below what it was
COLLAPSED = 0.1  # share of the entropy that is left
LOST = 0.1  # share of the accuracy, once at least this, that is left
WANED = 0.25  # the same, where it lasts for `WINDOW` steps
STEPS = 3  # in which that is seen: nobody wants to wait for `WINDOW` of them
AT_START = "alarms.json"  # in a run directory: those that the log does not tell
_TOLD = TypeAdapter(dict[str, str])
NOTHING = 0.005  # of the rewards, at either end
BROKEN = 0.5  # share of trajectories
SILENT = 0.9  # share of groups in which no turn has a weight


@dataclass(frozen=True)
class Alarm:
    """What was found after update `step`. `told` is one line: what, and the remedy."""

    name: str
    step: int
    told: str


def undone(rows: Sequence[Row]) -> str | None:
    """Later answers take right ones back."""
    held_out = _values(rows, "eval/gain")
    both = [row for row in rows if row.get("acc@turn_0") is not None and row.get("outcome") is not None]
    trained = [row["acc@turn_0"] - row["outcome"] for row in both[-WINDOW:]]
    lost = -held_out[-1] if held_out else -1.0
    if len(trained) == WINDOW:
        lost = max(lost, float(np.mean(trained)))
    if lost <= UNDONE:
        return None
    return (
        f"final answers are right {lost:.3f} less often than first ones: later turns take right answers back. "
        "Lower training.learning_rate, or warm-start on traces that keep right answers"
    )


def drifting(rows: Sequence[Row]) -> str | None:
    """The answer forced after a right end is no longer as sure: V, and regret by it, measure with a bent ruler."""
    before, now = _then_and_now(rows, "value/right_end")
    if not now <= before - DRIFT:
        return None
    return (
        f"V after right ends fell from {before:.3f} to {now:.3f}: nobody trains the forced answer. Judge regret by the "
        "frozen prover (regret_frozen), lower training.learning_rate, or set prover.policy to reference"
    )


def certain(rows: Sequence[Row]) -> str | None:
    """The policy hardly draws anything but its favourite tokens."""
    before, now = _then_and_now(rows, "entropy")
    if not now <= COLLAPSED * before:
        return None
    return (
        f"entropy fell from {before:.3g} to {now:.3g}: the policy tries nothing new. "
        "Lower training.learning_rate, or raise training.temperature or training.kl"
    )


def diverged(rows: Sequence[Row]) -> str | None:
    """What could be solved cannot any more: the updates broke the policy. In training by the mean of some steps."""
    for metric, steps, left in (("eval/accuracy", 1, LOST), ("outcome", STEPS, LOST), ("outcome", WINDOW, WANED)):
        values = _values(rows, metric)
        means = [float(np.mean(values[end - steps : end])) for end in range(steps, len(values) + 1)]
        if means and max(means) >= LOST and means[-1] <= left * max(means):
            return (
                f"accuracy fell from {max(means):.3f} to {means[-1]:.3f}: training has diverged. Go back to an earlier "
                "checkpoint and lower training.learning_rate"
            )
    return None


def silent(rows: Sequence[Row]) -> str | None:
    """Most groups teach nothing."""
    shares = _values(rows, "groups/without_signal")[-WINDOW:]
    if len(shares) < WINDOW or (share := float(np.mean(shares))) < SILENT:
        return None
    return (
        f"{share:.0%} of the groups have no signal: all members alike. Take problems of another difficulty (data.v0), "
        "a larger training.group_size, or an algorithm with values (mrt-rl)"
    )


def hopeless(rows: Sequence[Row]) -> str | None:
    """Nothing is right, or everything: there is nothing to learn from outcomes."""
    outcomes = _values(rows, "outcome")
    if len(outcomes) < STEPS or NOTHING < (mean := float(np.mean(outcomes[-STEPS:]))) < 1 - NOTHING:
        return None
    if mean <= NOTHING:
        if max(outcomes) > NOTHING:  # it was not always so: see `diverged`
            return None
        return (
            f"hardly any answer is right (mean reward {mean:.3f}): nothing can be learnt. Take easier problems "
            "(data.v0), another model or a warm start, or check the grader and where answers stand (protocol.marker)"
        )
    found = f"nearly every answer is right (mean reward {mean:.3f}): nothing is left to learn"
    return f"{found}. Take harder problems (data.v0)"


def breaking(rows: Sequence[Row]) -> str | None:
    """Most trajectories break the protocol."""
    shares = _values(rows, "stop/violation")[-STEPS:]
    if len(shares) < STEPS or (share := float(np.mean(shares))) < BROKEN:
        return None
    names = {name for row in rows[-STEPS:] for name in row if name.startswith("violation/")}
    worst = max(names, key=lambda name: sum(row.get(name) or 0.0 for row in rows[-STEPS:]), default="violation/?")
    return (
        f"{share:.0%} of the trajectories break the protocol (mostly {worst.partition('/')[2]}): the model does not "
        "speak it. Warm-start it (backtrack-mrt warm-start), take prompts instruct, or the protocol single or retry"
    )


RULES: dict[str, Callable[[Sequence[Row]], str | None]] = {
    "diverged": diverged,
    "final below first": undone,
    "forced answers drift": drifting,
    "entropy collapses": certain,
    "groups without signal": silent,
    "nothing to learn": hopeless,
    "protocol broken": breaking,
}


class Watch:
    """Follows a log and tells each alarm once, when it is raised."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.raised: dict[str, Alarm] = {}

    def see(self, row: Row) -> list[Alarm]:
        """The alarms that this row raises."""
        self.rows.append(row)
        quiet = {name: rule for name, rule in RULES.items() if name not in self.raised}
        found = [Alarm(name, row["step"], told) for name, rule in quiet.items() if (told := rule(self.rows))]
        self.raised |= {alarm.name: alarm for alarm in found}
        return found


class Bell(Watch):
    """A follower of a run that says the alarms on stderr. What an earlier part of the run said is not said again."""

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        run.followers.append(self)

    @main_only
    def log(self, step: int, metrics: Row) -> None:
        """A row of metrics.jsonl, or held-out means."""
        if not self.rows:
            for row in self.run.metrics():
                if row["step"] < step:
                    self.see(row)
        for alarm in self.see({"step": step} | dict(metrics)):
            tell(f"alarm at step {alarm.step}: {alarm.told}.", file=sys.stderr)

    def traces(self, step: int, scored: Sequence[Scored]) -> None:
        """Nothing is read off single trajectories."""


def raise_at_start(run: RunDir, told: Mapping[str, str]) -> None:
    """Alarms before the first update, by their names: told, and kept for the report."""
    run.save(AT_START, told)
    for line in told.values():
        tell(f"alarm: {line}.", file=sys.stderr)


def raised_at_start(path: Path) -> list[Alarm]:
    """Those of the run in a directory."""
    kept = path / AT_START
    if not kept.exists():
        return []
    remedy = "Delete it: the others can be read without it."
    told = read_whole(kept, _TOLD.validate_python, what="alarms by name", field=AT_START, remedy=remedy)
    return [Alarm(name, 0, line) for name, line in told.items()]


def alarms_of(history: Sequence[Row], evaluations: Sequence[Row] = ()) -> list[Alarm]:
    """All alarms of a run, from its metrics.jsonl and evaluations.jsonl, in the order in which they were raised."""
    wanted = ("gain", "accuracy")
    held_out = [
        {"step": line["step"]} | {f"eval/{name}": line[name]["mean"] for name in wanted if name in line}
        for line in evaluations
    ]
    watch = Watch()
    return [alarm for row in sorted([*history, *held_out], key=lambda row: row["step"]) for alarm in watch.see(row)]


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    return [float(row[metric]) for row in rows if row.get(metric) is not None]


def _then_and_now(rows: Sequence[Row], metric: str) -> tuple[float, float]:
    """Means over the first and over the last `WINDOW` values of a metric; NaN with fewer than two windows."""
    values = _values(rows, metric)
    if len(values) < 2 * WINDOW:
        return float("nan"), float("nan")
    return float(np.mean(values[:WINDOW])), float(np.mean(values[-WINDOW:]))
