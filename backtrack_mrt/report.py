"""What a finished run shows: the table, the plot, and summary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from backtrack_mrt.evaluate import Summary
from backtrack_mrt.metrics import Estimate
from backtrack_mrt.runlog import TokenLedger

BASE, TRAINED = "#767676", "#0072b2"  # grey and blue: told apart by colour-blind readers and in print


@dataclass(frozen=True)
class Result:
    """What a run found. `seconds` are wall times by part of the run, `ledgers` its tokens (training, evaluation)."""

    algo: str
    trained_revisions: int
    base: Summary
    trained: Summary
    seconds: Mapping[str, float]
    ledgers: Mapping[str, TokenLedger]

    def as_json(self) -> dict[str, Any]:
        """summary.json: every estimate is {mean, low, high, n}."""
        return {
            "algo": self.algo,
            "trained_revisions": self.trained_revisions,
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
        pairs = zip(rows(self.base, self.trained_revisions), rows(self.trained, self.trained_revisions), strict=True)
        for (name, base), (_, trained) in pairs:
            if base.n and trained.n:
                table.add_row(name, str(base), str(trained), f"{trained.mean - base.mean:+.3f}")
        return table

    def plot(self, path: Path, history: Sequence[Mapping[str, float]]) -> None:
        """Left: accuracy against revisions allowed, base and trained. Right: outcome (or loss) over the updates."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for summary, colour, name in ((self.base, BASE, "base"), (self.trained, TRAINED, self.algo)):
            points = summary.acc_at_turn
            x = list(range(len(points)))
            left.plot(x, [p.mean for p in points], "o-", color=colour, label=name)
            left.fill_between(x, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.2, lw=0)
        left.axvline(self.trained_revisions, color="black", lw=0.8, ls=":")
        left.annotate(
            "trained limit", (self.trained_revisions, left.get_ylim()[0]), rotation=90, ha="right", va="bottom"
        )
        left.set(xlabel="revisions allowed", ylabel="held-out accuracy (95 % interval)")
        left.legend()
        rewarded = any("outcome" in row for row in history)
        metric, label = ("outcome", "outcome of the training rollouts") if rewarded else ("loss", "loss")
        logged = [(row["step"], row[metric]) for row in history if metric in row]
        right.plot(*zip(*logged, strict=True), color=TRAINED)
        right.set(xlabel="update", ylabel=label)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def rows(summary: Summary, revisions: int) -> list[tuple[str, Estimate]]:
    """The most important numbers with their names, in the same order for every policy; `revisions` is the trained
    limit. A number that was not measured has n = 0."""
    last = len(summary.acc_at_turn) - 1
    found = [(f"final accuracy, {revisions} revisions (as trained)", summary.accuracy)]
    if last > revisions:
        found.append((f"final accuracy, {last} revisions", summary.accuracy_prolonged))
    for k, accuracy in enumerate(summary.acc_at_turn):
        found.append(("Acc@turn, first attempt" if k == 0 else f"Acc@turn, revision {k}", accuracy))
    samples = len(summary.maj_at_k)
    if samples > 1:
        found += [(f"pass@{samples}", summary.pass_at_k[-1]), (f"maj@{samples}", summary.maj_at_k[-1])]
    return [
        *found,
        ("first attempt wrong, final answer right", summary.wrong_to_right),
        ("first attempt right, final answer wrong", summary.right_to_wrong),
        ("tokens per trajectory", summary.tokens),
        (f"normalised regret at {summary.budget} tokens", summary.normalised_regret),
        ("backtracks per trajectory", summary.backtracks),
        ("backtracks to the right step", summary.backtrack_right_share),
        ("backtracks though right", summary.backtrack_though_right),
        ("turns without a violation", summary.clean_turns),
    ]
