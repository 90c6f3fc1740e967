"""What a finished run found: the table and summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.types import TokenLedger


@dataclass(frozen=True)
class Result:
    """What a run found. `seconds` are wall times by part of the run, `ledgers` its tokens (training, evaluation)."""

    algo: str
    trained_answers: int
    base: Summary
    trained: Summary
    seconds: Mapping[str, float]
    ledgers: Mapping[str, TokenLedger]

    def as_json(self) -> dict[str, Any]:
        """summary.json: every estimate is {mean, low, high, n}."""
        return {
            "algo": self.algo,
            "trained_answers": self.trained_answers,
            "base": asdict(self.base),
            "trained": asdict(self.trained),
            "seconds": dict(self.seconds),
            "tokens": {part: ledger.as_json() for part, ledger in self.ledgers.items()},
        }

    def table(self) -> Table:
        """Before → after, with 95 % intervals: the most important numbers. All of them are in summary.json."""
        table = Table(title=f"{self.algo}: held-out problems, n = {self.base.accuracy.n}, 95 % intervals")
        table.add_column("")
        for column in ("base", "trained", "change"):
            table.add_column(column, justify="right")
        pairs = zip(rows(self.base, self.trained_answers), rows(self.trained, self.trained_answers), strict=True)
        for (name, base), (_, trained) in pairs:
            if base.n and trained.n:
                table.add_row(name, str(base), str(trained), f"{trained.mean - base.mean:+.3f}")
        return table


def rows(summary: Summary, answers: int) -> list[tuple[str, Estimate]]:
    """The most important numbers with their names, in the same order for every policy; `answers` is the trained limit.
    A number that was not measured has n = 0."""
    last = len(summary.acc_at_turn)
    found = [("final accuracy (as trained)", summary.accuracy)]
    if last > answers:
        found.append((f"final accuracy, at most {last} answers", summary.accuracy_prolonged))
    for k, accuracy in enumerate(summary.acc_at_turn if last > 1 else (), 1):
        found.append((f"accuracy after answer {k}", accuracy))
    samples = len(summary.maj_at_k)
    if samples > 1:
        found += [(f"pass@{samples}", summary.pass_at_k[-1]), (f"maj@{samples}", summary.maj_at_k[-1])]
    if last > 1:
        found.append(("first answer wrong, final one right", summary.wrong_to_right))
        found.append(("first answer right, final one wrong", summary.right_to_wrong))
    return [
        *found,
        ("tokens per trajectory", summary.tokens),
        (f"normalised regret at {summary.budget} tokens", summary.normalised_regret),
        ("went back to the right step", summary.right_step),
        *((name.replace("_", " "), estimate) for name, estimate in summary.protocol.items()),
        ("turns without a violation", summary.clean_turns),
    ]
