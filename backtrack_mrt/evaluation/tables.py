"""Held-out results in tables: of one policy, of several side by side, of a run before and after training.

A table is a list of rows, the header first; `as_table` shows one in the terminal, `as_markdown` in a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from backtrack_mrt.evaluation.metrics.estimates import Estimate, over_seeds
from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.evaluation.rivals import Rivalry
from backtrack_mrt.types import TokenLedger

Rows = list[list[str]]


@dataclass(frozen=True)
class Policy:
    """What was evaluated: the base, or what an algorithm made of it. `summaries` by seed; `answers` is the limit that
    was trained with."""

    label: str
    summaries: Sequence[Summary]
    answers: int


@dataclass(frozen=True)
class RunResult:
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

    def rows(self) -> Rows:
        """Before → after: the most important numbers. All of them are in summary.json."""
        sides = {"base": self.base, "trained": self.trained}
        return outcome_table([Policy(name, [side], self.trained_answers) for name, side in sides.items()])

    def table(self) -> Table:
        """For the terminal."""
        return as_table(self.rows(), f"{self.algo}: n = {self.base.accuracy.n}, 95 % intervals")


def numbers(summary: Summary, answers: int) -> list[tuple[str, Estimate]]:
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
        ("the same by the frozen base's values", summary.normalised_regret_frozen),
        ("went back to the right step", summary.right_step),
        *((name.replace("_", " "), estimate) for name, estimate in summary.protocol.items()),
        ("turns without a violation", summary.clean_turns),
    ]


def outcome_table(policies: Sequence[Policy]) -> Rows:
    """A row per number that all of the policies have; behind two policies also the change, paired by seed where there
    are several."""
    two = len(policies) == 2
    found = [["held-out problems", *(policy.label for policy in policies), *(["change"] if two else [])]]
    told = [[dict(numbers(summary, policy.answers)) for summary in policy.summaries] for policy in policies]
    for name in told[0][0]:
        by_policy = [[summary[name] for summary in summaries if name in summary] for summaries in told]
        if all(estimates and estimates[0].n for estimates in by_policy):
            change = [_change(*by_policy)] if two else []
            found.append([name, *(str(pooled(estimates)) for estimates in by_policy), *change])
    return found


def phase_table(policies: Sequence[Policy]) -> Rows:
    """The turns of each phase, a row per policy that has it."""
    rows = [["turns by phase", "of", "per trajectory", "tokens", "progress", "without a violation"]]
    for phase in dict.fromkeys(name for p in policies for summary in p.summaries for name in summary.phases):
        for policy in policies:
            found = [summary.phases[phase] for summary in policy.summaries if phase in summary.phases]
            if found:
                columns = zip(*((of.turns, of.tokens, of.progress, of.clean) for of in found), strict=True)
                rows.append([phase, policy.label, *(str(pooled(list(column))) for column in columns)])
    return rows


def pooled(estimates: Sequence[Estimate]) -> Estimate:
    """Over seeds with Student's interval; a single seed keeps its own, the bootstrap's over problems."""
    return estimates[0] if len(estimates) == 1 else over_seeds([estimate.mean for estimate in estimates])


def _change(before: Sequence[Estimate], after: Sequence[Estimate]) -> str:
    differences = [b.mean - a.mean for a, b in zip(before, after, strict=True)]
    change = over_seeds(differences)
    interval = f" [{change.low:+.3f}, {change.high:+.3f}]" if len(differences) > 1 else ""
    return f"{change.mean:+.3f}{interval}"


def tables(summary: Summary, answers: int, title: str) -> list[Table]:
    """The most important numbers, then curves and further rollouts as far as they were measured; `answers` is the
    trained limit."""
    return [as_table(rows, name) for name, rows in _measured(summary, answers, title) if len(rows) > 1]


def _measured(summary: Summary, answers: int, title: str) -> Iterator[tuple[str, Rows]]:
    """Every table under its title, only a header where nothing was measured."""
    curve, extras, own = summary.curve, summary.extras, [Policy("", [summary], answers)]
    yield f"{title}: n = {summary.accuracy.n}, 95 % intervals", outcome_table(own)
    votes = list(zip(summary.pass_at_k, summary.maj_at_k, summary.first_maj_at_k, strict=True))
    rows = [[str(k), f"{k * summary.tokens.mean:.1f}", *map(str, three)] for k, three in enumerate(votes, 1)]
    if len(rows) > 1:
        yield "k samples side by side", [["k", "tokens", "pass@k", "maj@k", "of first attempts"], *rows]
    yield "the turns of each phase", [[row[0], *row[2:]] for row in phase_table(own)]
    rows = [
        [name, f"{at.problems} × {at.samples}", str(at.accuracy), f"{at.tokens.mean:.1f}", str(at.maj_at_k[-1])]
        for name, at in summary.sets.items()
    ]
    yield "by problem set", [["set", "n", "accuracy", "tokens", "maj@n"], *rows]
    rows = [
        [budget, str(regret), str(summary.regret_frozen[budget]), str(summary.regret_official[budget])]
        for budget, regret in summary.regret.items()
        if regret.n
    ]
    yield "normalised regret", [["budget", "sampled tokens", "by the frozen base", "mrt-official"], *rows]
    points = list(zip(curve.budgets, curve.tokens, curve.accuracy, curve.value, strict=True))[4::4]
    rows = [[f"{at:g}", f"{spent.mean:.1f}", str(right), str(value)] for at, spent, right, value in points]
    yield "every trajectory cut at a token budget", [["budget", "spent", "accuracy", "value"], *rows]
    at_budgets = (f"regret at {budget}" for budget in next((at.regret for at in extras.forced_rounds.values()), ()))
    rows = [
        [rounds, f"{at.tokens.mean:.1f}", str(at.accuracy), str(at.value), *map(str, at.regret.values())]
        for rounds, at in extras.forced_rounds.items()
    ]
    yield "budget forcing", [["rounds", "tokens", "accuracy", "value", *at_budgets], *rows]
    rows = [
        [str(k), f"{at.tokens.mean:.1f}", str(at.accuracy), str(at.majority)]
        for k, at in enumerate(extras.linearised, 1)
    ]
    yield "linearised, sliding window", [["answers", "tokens", "the last one", "a vote over all so far"], *rows]
    rows = [[str(j), f"{at.tokens.mean:.1f}", str(at.accuracy)] for j, at in enumerate(extras.majority_at_turn)]
    yield "majority of forced answers", [["turns", "tokens", "accuracy"], *rows]
    rows = [[str(steps), str(regret)] for steps, regret in enumerate(extras.regret_envelope, 1)]
    yield "regret against the better of voting and going on", [["turns", "mrt-official"], *rows]


def rivalry_table(found: Rivalry) -> Table:
    """Token efficiency at several accuracies, and the other policy's votes at the same tokens."""
    votes = found.majority_at_tokens
    rows = [
        ["", ""],
        *([f"their tokens / ours, for accuracy {at}", str(ratio)] for at, ratio in found.token_efficiency.items()),
        *([f"the same by votes, for maj@k {at}", str(ratio)] for at, ratio in found.voting_efficiency.items()),
        [f"our accuracy, {found.own.tokens.mean:.1f} tokens", str(found.own.accuracy)],
        ["their maj@k at as many tokens", str(votes) if votes.n else "their samples end before: draw more"],
    ]
    return as_table(rows, "against the other trajectories")


def as_table(rows: Rows, title: str, whole: bool = False, **settings: Any) -> Table:
    """For the terminal, numbers on the right; `settings` are rich's. whole: where it is narrow only the first column is
    folded."""
    header, *others = rows
    table = Table(title=title, **settings)
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left", overflow="fold", no_wrap=whole and place > 0)
    for row in others:
        table.add_row(*row)
    return table


def as_markdown(rows: Rows) -> str:
    """For a document."""
    header, *others = rows
    line = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, line, *others))
