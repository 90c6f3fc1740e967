"""A comparison in tables: whole for documents and reports, short for a terminal; what it comes to, in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backtrack_mrt.config import Ledger
from backtrack_mrt.evaluation.compared_runs import COMPARED, ComparedRuns, at, base_votes, gain
from backtrack_mrt.evaluation.learning_curves import has_curves, learning_rows
from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.evaluation.tables import Rows, as_markdown, as_table
from backtrack_mrt.runs.jsonl import json_text

NEARLY = 0.1  # tokens that differ by more are not called equal


class Comparison(ComparedRuns):
    """Runs side by side, to be shown. failed: runs that are missing, each with the reason. left_out: what is missing
    for that, in a sentence."""

    failed: tuple[str, ...] = ()
    left_out: str = ""

    def rows(self) -> Rows:
        """What was measured: one row per algorithm, the base first."""
        reference, compared = self.reference, self.compared
        base = [_cell(self.estimate(reference, at("base", *place[1:]))) for place in compared.values()]
        rows = [["algorithm", *compared], ["base", *base]]
        for label in self.runs:
            rows.append([self.told(label), *(_cell(self.estimate(label, at(*place))) for place in compared.values())])
        return rows

    def told(self, label: str) -> str:
        """The label, with how many of its runs broke down."""
        lost = sum(bool(run.lost) for run in self.runs[label])
        return f"{label} ({lost} broke down)" if lost else label

    def set_rows(self) -> Rows:
        """Accuracy by problem set and on average, each set counting the same; what the base's votes come to with as
        many tokens as the reference's trajectories. Only a header where there is one set."""
        reference = self.reference
        rows = [["algorithm", *self.sets]]
        if not self.sets:
            return rows
        places = [("sets", name) for name in self.sets]
        rows.append(["base", *(_cell(self.estimate(reference, at("base", *p, "accuracy"))) for p in places)])
        votes = [self.estimate(reference, lambda run, p=p: base_votes(run, *p)) for p in places]  # type: ignore[misc]
        rows.append([f"base, maj@k at {reference}'s tokens", *map(_cell, votes)])
        for label in self.runs:
            rows.append([label, *(_cell(self.estimate(label, at("trained", *p, "accuracy"))) for p in places)])
        return rows

    def ledger_rows(self) -> Rows:
        """What was gained for which tokens: gains at equal sampled tokens, and at equal total ones where there are such
        runs; tokens, time, and how much of the gradient was signal."""
        to = f"− {self.reference}'s"
        header = ["algorithm", "gain, equal sampled tokens", to, "gain, equal total tokens", to]
        rows = [[*header, "sampled", "prover", "total", "s", "signal : noise", "alarms"]]
        for label, members in self.runs.items():
            gains = []
            for ledger in ("sampled", "total"):
                there = ledger == "total" or any(run.ledger == "sampled" for run in members)
                pair = self.estimate(label, gain, ledger), self.difference(label, gain, ledger=ledger)
                gains += [_cell(number, "+") if there else "–" for number in pair]
            ledgers = [run.summary["tokens"]["training"] for run in members]
            costs = [f"{np.mean([ledger[kind] for ledger in ledgers]):,.0f}" for kind in ("sampled", "prover", "total")]
            seconds = f"{np.mean([run.summary['seconds']['train'] for run in members]):.0f}"
            ratios = [run.signal_to_noise for run in members]
            alarms = sorted({alarm for run in members for alarm in self.alarms(run)})
            told = f"{np.mean(ratios):.2f}" if np.isfinite(ratios).all() else "–"
            rows.append([self.told(label), *gains, *costs, seconds, told, ", ".join(alarms)])
        return rows

    def markdown(self) -> str:
        """comparison.md."""
        first = next(iter(self.runs.values()))[0]
        trained, prolonged = (first.summary["base"][k]["n"] for k in ("accuracy", "accuracy_prolonged"))
        seeds = self.seeds
        apart = "No tokens in training can be compared"
        if np.isfinite(self.tokens_apart()):
            apart = f"Sampled tokens in training differ by at most {100 * self.tokens_apart():.1f} %"
        if self.equal_total:
            apart += f", total ones, where they are meant to be equal, by {100 * self.tokens_apart('total'):.1f} %"
        settings = [run.label for run, *_ in self.runs.values() if run.label != run.config.algo_label]
        every = [run for members in self.runs.values() for run in members]
        missing = [f"- broke down: {run.path.name}: {run.lost}" for run in every if run.lost]
        missing += [f"- failed: {run}" for run in self.failed]
        lines = [
            f"# {' · '.join(self.runs)}",
            "",
            self.headline(),
            "",
            *missing,
            *([""] if missing else []),
            f"{first.config.env_label} on {', '.join(first.config.data.eval)}: n = {trained} trajectories per run "
            f"({prolonged} prolonged), seeds {', '.join(map(str, seeds))}. Mean over seeds with the 95 % Student "
            "interval over seeds" + (" (one seed: no interval)." if len(seeds) < 2 else "."),
            f"{apart}; total tokens are those sampled, inserted by the environment and spent by the prover.",
            *([f"Settings other than an algorithm's own: {'; '.join(settings)}."] if settings else []),
            "",
            as_markdown(self.rows()),
            *([as_markdown(self.set_rows())] if self.sets else []),
            as_markdown(self.ledger_rows()),
            "Signal : noise is not measured (–) where an update has fewer than two parts of different problems: for "
            "self-training, where it fits one micro-batch.",
            "",
        ]
        ledgers: dict[Ledger, str] = {"sampled": "Tokens sampled in training", "total": "The same in all tokens"}
        for ledger, told in ledgers.items() if has_curves(self.runs) else ():
            lines += [
                f"{told} until the held-out accuracy is first reached (×: as a multiple of {self.reference}'s, paired "
                "by seed, over the seeds in which both reach it):",
                "",
                as_markdown(learning_rows(self.runs, ledger)),
            ]
        if self.tuning is not None:
            lines += [f"{self.tuning.caption}:", "", as_markdown(self.tuning.rows())]
        return "\n".join(lines)

    def table(self) -> Table:
        """For a terminal of 80 columns: what matters most, as mean ± half of the interval."""
        places = [COMPARED[name] for name in ("final accuracy", "tokens", "regret")]
        rows = [["algorithm", "accuracy", "difference", "tokens", "regret"]]

        def add(name: str, label: str, side: str, difference: str = "") -> None:
            numbers = [_cell(self.estimate(label, at(side, *place[1:])), short=True) for place in places]
            rows.append([name, numbers[0], difference, *numbers[1:]])

        reference = self.reference
        add("base", reference, "base")
        for label in self.runs:
            to_first = _cell(self.difference(label, gain), "+", short=True) if label != reference else ""
            add(self.told(label), label, "trained", to_first)
        several = "; ± 95 % over seeds" if len(self.seeds) > 1 else ""
        caption = f"difference: gain in accuracy − that of {reference}"
        title = f"seeds {', '.join(map(str, self.seeds))}{several}"
        return as_table(rows, title, whole=True, box=SIMPLE_HEAD, caption=caption, pad_edge=False, show_edge=False)

    def headline(self) -> str:
        """What it comes to, in a sentence: the reference's gain and that of the best of the others, with intervals."""
        reference, seeds = self.reference, len(self.seeds)
        told = f"{reference} gains {_cell(self.estimate(reference, gain), '+')} in accuracy over the base"
        others = [label for label in self.runs if label != reference]
        if others:
            best = max(others, key=lambda label: self.estimate(label, gain).mean)
            difference = self.difference(reference, gain, to=best)
            theirs = _cell(self.estimate(best, gain), "+")
            verdict = "level with"
            if difference.low > 0 or difference.high < 0:
                verdict = "more than" if difference.low > 0 else "less than"
            elif seeds < 2:
                verdict = "beside"
            told += f", {verdict} the best of the others, {best} ({theirs}): difference {_cell(difference, '+')}"
        budgets = {run.ledger for members in self.runs.values() for run in members}
        ledger: Ledger = "total" if budgets == {"total"} else "sampled"
        apart = self.tokens_apart(ledger)
        tokens = f"at {ledger} tokens that differ by up to {apart:.0%}" if apart > NEARLY else "at equal tokens"
        if others and np.isfinite(apart):  # one algorithm alone is equal to nothing, nor is one that broke down
            told += f", {tokens}"
        lost = {label: sum(bool(run.lost) for run in members) for label, members in self.runs.items()}
        broken = [f"{label} broke down in {number} of {seeds}" for label, number in lost.items() if number]
        counted = f" Counted as never right: {'; '.join(broken)}." if broken else ""
        return f"{told}, {seeds} seed{'s' if seeds > 1 else ''}.{counted}{self.left_out}"

    def write(self, folder: str | Path) -> None:
        """comparison.json and comparison.md, in a folder that need not be there yet."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / "comparison.json").write_text(json_text(self.as_json()), encoding="utf-8")
        (place / "comparison.md").write_text(self.markdown(), encoding="utf-8")


def _cell(estimate: Estimate, sign: str = "", short: bool = False) -> str:
    """The number with its interval; short: with half of its width."""
    return estimate.told(sign, digits=1 if abs(estimate.mean) >= 10 else 3, short=short)
