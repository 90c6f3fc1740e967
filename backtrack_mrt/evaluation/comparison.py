"""Finished runs side by side: numbers over seeds, differences paired by seed, the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.metrics.budgets import tokens_to_reach
from backtrack_mrt.evaluation.metrics.estimates import Estimate, over_seeds
from backtrack_mrt.evaluation.tables import as_markdown, as_table
from backtrack_mrt.runs.finished import Run, mean_of
from backtrack_mrt.runs.jsonl import json_text

COMPARED = {  # what is put side by side: where it is in summary.json, by its name in the table
    "final accuracy": ("trained", "accuracy"),
    "accuracy, prolonged": ("trained", "accuracy_prolonged"),
    "first attempt": ("trained", "acc_at_turn", 0),
    "tokens": ("trained", "tokens"),
    "regret": ("trained", "normalised_regret"),
    "wrong → right": ("trained", "wrong_to_right"),
    "right → wrong": ("trained", "right_to_wrong"),
    "right step": ("trained", "right_step"),
}
SHARED = (
    "env",
    "prompts",
    "protocol",
    "model",
    "data",
    "prover",
    "grading",
    "evaluation",
)  # must be equal to be compared


class Comparison:
    """Runs by algorithm and seed. The first label is the reference of the differences.

    Raises UserError for runs that are not comparable: other data, model, protocol, prover or evaluation, an algorithm
    without a seed that the others have, or one seed twice.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        if not runs:
            raise UserError("run", None, "nothing to compare", "Give directories of finished runs.")
        self.runs: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            self.runs[run.label].append(run)
        first = runs[0]
        for run in runs:
            for section in SHARED:
                ours, theirs = (c.resolved()[section] for c in (first.config, run.config))
                if ours != theirs:
                    reason = f"its {section} differs from that of {first.path}: {differences(ours, theirs)}"
                    raise UserError("run", str(run.path), reason, "Compare runs that differ in the algorithm only.")
        self.seeds = [run.config.seed for run in self.runs[first.label]]
        for label, members in self.runs.items():
            seeds = [run.config.seed for run in members]
            if sorted(seeds) != sorted(set(self.seeds)):
                reason = f"seeds {seeds} where {first.label} has {self.seeds}"
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

    def estimate(self, label: str, value: Callable[[Run], float]) -> Estimate:
        """Mean of a number over the seeds of an algorithm."""
        return over_seeds([value(run) for run in self.runs[label]])

    def difference(self, label: str, value: Callable[[Run], float], to: str | None = None) -> Estimate:
        """The same number minus that of the reference (or of `to`), paired by seed."""
        pairs = zip(self.runs[label], self.runs[to or self.reference], strict=True)
        return over_seeds([value(ours) - value(theirs) for ours, theirs in pairs])

    def tokens_apart(self) -> float:
        """The largest relative difference in sampled tokens between an algorithm and the reference, over all seeds.
        Algorithms that sample nothing (sft) are left out."""
        apart = [
            abs(run.sampled_tokens / reference.sampled_tokens - 1)
            for members in self.runs.values()
            for run, reference in zip(members, self.runs[self.reference], strict=True)
            if run.sampled_tokens
        ]
        return max(apart)

    def as_json(self) -> dict[str, Any]:
        """comparison.json."""
        return {
            "reference": self.reference,
            "seeds": self.seeds,
            "sampled_tokens_apart": self.tokens_apart(),
            "algorithms": {label: dict(self._numbers(label)) for label in self.runs},
        }

    def _numbers(self, label: str) -> Iterator[tuple[str, Any]]:
        yield "runs", [run.path.name for run in self.runs[label]]
        numbers: dict[str, Callable[[Run], float]] = {name: at(*place) for name, place in self.compared.items()}
        numbers |= {"gain over the base": gain, "token efficiency over the base": efficiency}
        for name, value in numbers.items():
            yield (
                name,
                {
                    "mean": asdict(self.estimate(label, value)),
                    "difference": asdict(self.difference(label, value)),
                    "runs": [value(run) for run in self.runs[label]],
                },
            )
        for kind in ("sampled", "env", "prover"):
            tokens = [run.summary["tokens"]["training"][kind] for run in self.runs[label]]
            yield f"training tokens, {kind}", tokens
        yield "training seconds", [run.summary["seconds"]["train"] for run in self.runs[label]]

    def rows(self) -> list[list[str]]:
        """The table: one row per algorithm, the base first."""
        header = [
            "algorithm",
            *self.compared,
            "gain",
            f"gain − {self.reference}'s",
            "sampled tokens",
            "prover tokens",
            "s",
        ]
        base = [_cell(self.estimate(self.reference, at("base", *place[1:]))) for place in self.compared.values()]
        rows = [header, ["base", *base, "", "", "", "", ""]]
        for label, members in self.runs.items():
            numbers = [_cell(self.estimate(label, at(*place))) for place in self.compared.values()]
            gains = [_cell(self.estimate(label, gain), "+"), _cell(self.difference(label, gain), "+")]
            ledgers = [run.summary["tokens"]["training"] for run in members]
            costs = [f"{np.mean([ledger[kind] for ledger in ledgers]):,.0f}" for kind in ("sampled", "prover")]
            seconds = f"{np.mean([run.summary['seconds']['train'] for run in members]):.0f}"
            rows.append([label, *numbers, *gains, *costs, seconds])
        return rows

    def markdown(self) -> str:
        """comparison.md."""
        first = next(iter(self.runs.values()))[0]
        trained, prolonged = (first.summary["base"][k]["n"] for k in ("accuracy", "accuracy_prolonged"))
        lines = [
            f"# {' · '.join(self.runs)}",
            "",
            f"{first.config.env_label} on {', '.join(first.config.data.eval)}: n = {trained} trajectories per run "
            f"({prolonged} prolonged), seeds {', '.join(map(str, self.seeds))}. Mean over seeds with the 95 % Student "
            "interval over seeds" + (" (one seed: no interval)." if len(self.seeds) < 2 else "."),
            f"Sampled tokens in training differ by at most {100 * self.tokens_apart():.1f} %; the prover's are counted "
            "beside.",
            "",
        ]
        return "\n".join(lines) + "\n" + as_markdown(self.rows())

    def table(self) -> Table:
        """For a terminal of 80 columns: what matters most, as mean ± half of the interval."""
        places = [COMPARED[name] for name in ("final accuracy", "tokens", "regret")]
        rows = [["algorithm", "accuracy", "difference", "tokens", "regret"]]

        def add(name: str, label: str, side: str, difference: str = "") -> None:
            accuracy, *others = [_cell(self.estimate(label, at(side, *place[1:])), short=True) for place in places]
            rows.append([name, accuracy, difference, *others])

        add("base", self.reference, "base")
        for label in self.runs:
            to_first = _cell(self.difference(label, gain), "+", short=True) if label != self.reference else ""
            add(label, label, "trained", to_first)
        several = "; ± 95 % over seeds" if len(self.seeds) > 1 else ""
        caption = f"difference: gain in accuracy − that of {self.reference}"
        title = f"seeds {', '.join(map(str, self.seeds))}{several}"
        return as_table(rows, title, whole=True, box=SIMPLE_HEAD, caption=caption, pad_edge=False, show_edge=False)

    def write(self, folder: Path) -> None:
        """comparison.json and comparison.md."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comparison.json").write_text(json_text(self.as_json()), encoding="utf-8")
        (folder / "comparison.md").write_text(self.markdown(), encoding="utf-8")


def efficiency(run: Run, than: Run | None = None, share: float = 0.9) -> float:
    """Tokens that the other policy (`than`, or the run's own base) needs / tokens that the trained policy needs for the
    same accuracy: `share` of the lower of their two highest."""
    summaries = [run.summary["base"] if than is None else than.summary["trained"], run.summary["trained"]]
    curves = [
        tuple(np.array([mean_of(point) for point in summary["curve"][name]]) for name in ("accuracy", "tokens"))
        for summary in summaries
    ]
    level = share * min(accuracy.max() for accuracy, _ in curves)
    theirs, ours = (tokens_to_reach(accuracy[None], tokens, np.array([level]))[0] for accuracy, tokens in curves)
    return float(theirs / ours)


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


def _cell(estimate: Estimate, sign: str = "", short: bool = False) -> str:
    """The number with its interval; short: with half of its width."""
    if np.isnan(estimate.mean):
        return "–"
    digits = 1 if abs(estimate.mean) >= 10 else 3
    number = f"{estimate.mean:{sign}.{digits}f}"
    if np.isnan(estimate.low):
        return number
    if short:
        return f"{number} ± {estimate.high - estimate.mean:.{digits}f}"
    return f"{number} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
