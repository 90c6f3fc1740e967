"""The tables of one policy's evaluation."""

from __future__ import annotations

from rich.table import Table

from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.evaluation.result import rows
from backtrack_mrt.evaluation.rivals import Rivalry


def tables(summary: Summary, answers: int, title: str) -> list[Table]:
    """The most important numbers, then curves and further rollouts as far as they were measured; `answers` is the
    trained limit."""
    numbers = _table(f"{title}: n = {summary.accuracy.n}, 95 % intervals", "", "")
    for name, estimate in rows(summary, answers):
        if estimate.n:
            numbers.add_row(name, str(estimate))
    curve, extras = summary.curve, summary.extras
    votes = _table("k samples side by side", "k", "tokens", "pass@k", "maj@k")
    for k, (passed, majority) in enumerate(zip(summary.pass_at_k, summary.maj_at_k, strict=True), 1):
        votes.add_row(str(k), f"{k * summary.tokens.mean:.1f}", str(passed), str(majority))
    regrets = _table("normalised regret", "budget", "sampled tokens", "mrt-official")
    for budget, regret in summary.regret.items():
        if regret.n:
            regrets.add_row(budget, str(regret), str(summary.regret_official[budget]))
    budgets = _table("every trajectory cut at a token budget", "budget", "spent", "accuracy", "value")
    points = list(zip(curve.budgets, curve.tokens, curve.accuracy, curve.value, strict=True))
    for tokens, spent, accuracy, value in points[4::4]:
        budgets.add_row(f"{tokens:g}", f"{spent.mean:.1f}", str(accuracy), str(value))
    found = [numbers, *([votes] if votes.row_count > 1 else []), regrets, budgets]
    for name, first, extra in (
        ("budget forcing", "extra checks", extras.forced_rounds.items()),
        ("linearised, sliding window", "answers", enumerate(extras.linearised, 1)),
        ("majority of forced answers", "turns", enumerate(extras.majority_at_turn)),
    ):
        more = _table(name, first, "tokens", "accuracy")
        for key, point in extra:
            more.add_row(str(key), f"{point.tokens.mean:.1f}", str(point.accuracy))
        found.append(more)
    return [table for table in found if table.row_count]


def rivalry_table(found: Rivalry) -> Table:
    """Token efficiency at several accuracies, and the other policy's votes at the same tokens."""
    table = _table("against the other trajectories", "", "")
    for level, ratio in found.token_efficiency.items():
        table.add_row(f"their tokens / ours, for accuracy {level}", str(ratio))
    table.add_row(f"our accuracy, {found.own.tokens.mean:.1f} tokens", str(found.own.accuracy))
    votes = found.majority_at_tokens
    table.add_row("their maj@k at as many tokens", str(votes) if votes.n else "their samples end before: draw more")
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title)
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if not name and place == 0 else "right")
    return table
