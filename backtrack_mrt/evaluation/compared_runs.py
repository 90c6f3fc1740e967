"""Finished runs side by side: numbers over seeds, differences paired by seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from backtrack_mrt.config import Config, Ledger
from backtrack_mrt.errors import NO_VALUE, UserError
from backtrack_mrt.evaluation.metrics.budgets import tokens_to_reach
from backtrack_mrt.evaluation.metrics.estimates import NOTHING, Estimate, over_seeds
from backtrack_mrt.evaluation.tuning import Tuning
from backtrack_mrt.runs.alarms import alarms_of
from backtrack_mrt.runs.finished import Run, mean_of
from backtrack_mrt.types import FloatArray

COMPARED = {  # what is put side by side: where it is in summary.json, by its name in the table
    "final accuracy": ("trained", "accuracy"),
    "accuracy, prolonged": ("trained", "accuracy_prolonged"),
    "first attempt": ("trained", "acc_at_turn", 0),
    "tokens": ("trained", "tokens"),
    "regret": ("trained", "normalised_regret"),
    "regret, one prover": ("trained", "normalised_regret_frozen"),
    "wrong → right": ("trained", "wrong_to_right"),
    "right → wrong": ("trained", "right_to_wrong"),
    "right step": ("trained", "right_step"),
}
SHARE = 0.9  # of the accuracy that both policies reach: where their tokens are compared
# What must be equal to be compared.
SHARED = ("env", "prompts", "protocol", "model", "data", "prover", "grading", "evaluation")


class ComparedRuns:
    """Runs by algorithm and seed. The first label is the reference of the differences. tuning: how the settings were
    chosen.

    `runs` are those at equal sampled tokens; `equal_total` has those that took as many tokens in all as the reference
    (whose runs are in both), for the algorithms that have such runs; where there are no others, `runs` has them, too.

    Raises UserError for runs that are not comparable: other data, model, protocol, prover or evaluation, an algorithm
    without a seed that the others have, or one seed twice.
    """

    def __init__(self, runs: Sequence[Run], tuning: Tuning | None = None) -> None:
        if not runs:
            raise UserError("run", NO_VALUE, "nothing to compare", "Give directories of finished runs.")
        self.tuning = tuning
        first = runs[0]
        by_ledger: dict[Ledger, dict[str, list[Run]]] = {"sampled": defaultdict(list), "total": defaultdict(list)}
        names = labels(runs)
        for label, run in zip(names, runs, strict=True):
            by_ledger[run.ledger][label].append(run)
        sampled, total = by_ledger["sampled"], by_ledger["total"]
        self.runs: dict[str, list[Run]] = {label: sampled.get(label) or total[label] for label in names}
        self.equal_total = {label: total[label] for label in self.runs if label in total}
        if self.equal_total:
            self.equal_total = {names[0]: self.runs[names[0]]} | self.equal_total
        for run in runs:
            for section, told in differing_sections(first.config, run.config):
                if section in SHARED:
                    reason = f"its {section} differs from that of {first.path}: {told}"
                    raise UserError("run", str(run.path), reason, "Compare runs that differ in the algorithm only.")
        self.seeds = [run.config.seed for run in self.runs[names[0]]]
        for label, members in [*self.runs.items(), *self.equal_total.items()]:
            seeds = [run.config.seed for run in members]
            if len(set(seeds)) < len(seeds):
                raise UserError(
                    "run", label, f"there are several runs with one seed: {seeds}", "Give one for each seed."
                )
            if sorted(seeds) != sorted(set(self.seeds)):
                reason = f"seeds {seeds} where {names[0]} has {self.seeds}"
                raise UserError("run", label, reason, "Compare runs with the same seeds, each once.")
            members.sort(key=lambda run: self.seeds.index(run.config.seed))

    @property
    def reference(self) -> str:
        """The label of the first algorithm."""
        return next(iter(self.runs))

    @property
    def compared(self) -> dict[str, tuple[str | int, ...]]:
        """What is put side by side: `COMPARED`, and the protocol's own metrics, as far as there are numbers."""
        summaries = [run.summary["trained"] for members in self.runs.values() for run in members]
        own = [name for name in summaries[0]["protocol"] if all(name in summary["protocol"] for summary in summaries)]
        places = COMPARED | {name.replace("_", " "): ("trained", "protocol", name) for name in own}
        return {
            name: place
            for name, place in places.items()
            if name != "right step" or any(summary["right_step"]["mean"] is not None for summary in summaries)
        }

    def members(self, label: str, ledger: Ledger = "sampled") -> list[Run]:
        """The runs of an algorithm at as many tokens as the reference's; none where it has no such runs."""
        return self.runs[label] if ledger == "sampled" else self.equal_total.get(label, [])

    @property
    def sets(self) -> list[str]:
        """The problem sets and their average; none where there is only one set."""
        return list(self.runs[self.reference][0].summary["base"]["sets"])

    def estimate(self, label: str, value: Callable[[Run], float], ledger: Ledger = "sampled") -> Estimate:
        """Mean of a number over the seeds of an algorithm."""
        members = self.members(label, ledger)
        return over_seeds([value(run) for run in members]) if members else NOTHING

    def difference(
        self, label: str, value: Callable[[Run], float], to: str | None = None, ledger: Ledger = "sampled"
    ) -> Estimate:
        """The same number minus that of the reference (or of `to`), paired by seed."""
        ours, theirs = self.members(label, ledger), self.members(to or self.reference, ledger)
        pairs = zip(ours, theirs, strict=True) if ours and theirs else ()
        found = [value(one) - value(other) for one, other in pairs]
        return over_seeds(found) if found else NOTHING

    def tokens_apart(self, ledger: Ledger = "sampled") -> float:
        """The largest relative difference in tokens between an algorithm and the reference, over all seeds, among the
        runs at equal tokens in that ledger; NaN without any. Algorithms that sample nothing (sft) are left out, and
        runs that broke down on the way."""
        apart = [
            abs(run.tokens(ledger) / reference.tokens(ledger) - 1)
            for label in self.runs
            for run, reference in zip(self.members(label, ledger), self.members(self.reference, ledger), strict=False)
            if run.sampled_tokens and not (run.lost or reference.lost)
        ]
        return max(apart, default=math.nan)

    def alarms(self, run: Run) -> list[str]:
        """The names of a run's alarms."""
        return [alarm.name for alarm in alarms_of(run.history, run.evaluations)]

    def as_json(self) -> dict[str, Any]:
        """comparison.json."""
        return {
            "reference": self.reference,
            "seeds": self.seeds,
            "sampled_tokens_apart": self.tokens_apart(),
            "total_tokens_apart": self.tokens_apart("total"),
            "tuning": None if self.tuning is None else [asdict(tried) for tried in self.tuning.tried],
            "algorithms": {label: dict(self._numbers(label)) for label in self.runs},
        }

    def _numbers(self, label: str) -> Iterator[tuple[str, Any]]:
        yield "runs", [run.path.name for run in self.runs[label]]
        yield "broke down", {run.path.name: run.lost for run in self.runs[label] if run.lost}
        yield "settings", self.runs[label][0].config.algorithm.model_dump()
        numbers: dict[str, Callable[[Run], float]] = {name: at(*place) for name, place in self.compared.items()}
        numbers |= {
            "gain over the base": gain,
            "token efficiency over the base": efficiency,
            "token efficiency over the base, by votes": votes_efficiency,
            "the base's maj@k at as many tokens": base_votes,
        }
        for name in self.sets:
            numbers[f"accuracy on {name}"] = at("trained", "sets", name, "accuracy")
        for name, value in numbers.items():
            yield name, self._side_by_side(label, value, "sampled")
        if label in self.equal_total:
            yield "gain over the base, equal total tokens", self._side_by_side(label, gain, "total")
        for kind in ("sampled", "env", "prover", "total"):
            tokens = [run.summary["tokens"]["training"][kind] for run in self.runs[label]]
            yield f"training tokens, {kind}", tokens
        yield "gradient, signal to noise", [run.signal_to_noise for run in self.runs[label]]
        costs = [sum(row.get("time/noise") or 0.0 for row in run.history) for run in self.runs[label]]
        yield "gradient, signal to noise: seconds", costs
        yield "alarms", {run.path.name: self.alarms(run) for run in self.runs[label]}
        yield "training seconds", [run.summary["seconds"]["train"] for run in self.runs[label]]

    def _side_by_side(self, label: str, value: Callable[[Run], float], ledger: Ledger) -> dict[str, Any]:
        return {
            "mean": asdict(self.estimate(label, value, ledger)),
            "difference": asdict(self.difference(label, value, ledger=ledger)),
            "runs": [value(run) for run in self.members(label, ledger)],
        }


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its algorithm, with those settings in which runs of that algorithm differ."""
    settings = [run.config.algorithm.model_dump() for run in runs]
    by_algo = defaultdict(list)
    for run, own in zip(runs, settings, strict=True):
        by_algo[run.config.algo_label].append(own)
    found = []
    for run, own in zip(runs, settings, strict=True):
        others = by_algo[run.config.algo_label]
        told = [f"{name}={value}" for name, value in own.items() if any(other[name] != value for other in others)]
        found.append(f"{run.config.algo_label} ({', '.join(told)})" if told else run.config.algo_label)
    return found


def efficiency(run: Run, than: Run | None = None) -> float:
    """Tokens that the other policy (`than`, or the run's own base) needs / tokens that the trained policy needs for the
    same accuracy: `SHARE` of the lower of their two highest."""
    other = run.summary["base"] if than is None else than.summary["trained"]
    curves = [summary["curve"] for summary in (other, run.summary["trained"])]
    return _tokens_apart(*((_means(curve["accuracy"]), _means(curve["tokens"])) for curve in curves))


def votes_efficiency(run: Run) -> float:
    """The same over the run's own base, off the curves of maj@k against k × tokens; NaN with a single sample per
    problem."""
    sides = run.summary["base"], run.summary["trained"]
    votes = [_means(summary["maj_at_k"]) for summary in sides]
    if min(map(len, votes)) < 2:
        return math.nan
    spent = [mean_of(summary["tokens"]) for summary in sides]
    tokens = [each * np.arange(1.0, len(found) + 1) for each, found in zip(spent, votes, strict=True)]
    return _tokens_apart(*zip(votes, tokens, strict=True))


def _means(points: Sequence[Any]) -> FloatArray:
    return np.array([mean_of(point) for point in points])


def _tokens_apart(*curves: tuple[FloatArray, FloatArray]) -> float:
    """Ratio of the tokens at which two curves of accuracy against tokens reach `SHARE` of the lower highest one."""
    level = SHARE * min(accuracy.max() for accuracy, _ in curves)
    theirs, ours = (tokens_to_reach(accuracy, tokens, level)[0] for accuracy, tokens in curves)
    return float(theirs / ours)


def base_votes(run: Run, *place: str) -> float:
    """maj@k of the base at as many tokens as one trajectory of the trained policy takes, interpolated between the k:
    what a policy must beat that spends them on one. `place`: of a set's results in the summary. NaN where the base's
    samples do not take as many."""
    base, trained = (run.summary[side] for side in ("base", "trained"))
    for key in place:
        base, trained = base[key], trained[key]
    votes = [mean_of(point) for point in base["maj_at_k"]]
    k = mean_of(trained["tokens"]) / mean_of(base["tokens"])
    return float(np.interp(k, range(1, len(votes) + 1), votes)) if k <= len(votes) else math.nan


def differing_sections(ours: Config, theirs: Config) -> Iterator[tuple[str, str]]:
    """The sections in which two configs differ, and how."""
    other = theirs.resolved()
    for section, value in ours.resolved().items():
        if value != other[section]:
            yield section, differences(value, other[section])


def differences(ours: Any, theirs: Any) -> str:
    """What two values or sections do not have in common, in words."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return "; ".join(
            f"{key}: {ours.get(key)!r} against {theirs.get(key)!r}"
            for key in ours | theirs
            if ours.get(key) != theirs.get(key)
        )
    return f"{ours!r} against {theirs!r}"


def at(*place: str | int) -> Callable[[Run], float]:
    """The mean of an estimate in summary.json, as a number of a run."""
    return lambda run: run.mean(*place)


def gain(run: Run) -> float:
    """Accuracy of the trained policy minus the base's, at the trained limit."""
    return run.mean("trained", "accuracy") - run.mean("base", "accuracy")
