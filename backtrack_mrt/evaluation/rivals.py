"""One policy's trajectories held against those of another: tokens for the same accuracy, votes at the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backtrack_mrt.evaluation.metrics.budgets import majority_at_tokens, token_efficiency, voting_efficiency
from backtrack_mrt.evaluation.metrics.estimates import Estimate
from backtrack_mrt.evaluation.metrics.summary import Cuts, Point, budget_grid, points_by_answer
from backtrack_mrt.types import Scored


@dataclass(frozen=True)
class Rivalry:
    """A policy against another one: its own accuracy and tokens at the trained limit; tokens that the other needs /
    tokens that it needs by accuracy, off single trajectories (`token_efficiency`) and off the curves of maj@k
    (`voting_efficiency`); and maj@k of the other at as many tokens."""

    own: Point
    token_efficiency: dict[str, Estimate]
    voting_efficiency: dict[str, Estimate]
    majority_at_tokens: Estimate


def rivalry(ours: Sequence[Scored], theirs: Sequence[Scored], limits: Cuts) -> Rivalry:
    """Graded trajectories of two policies; both are cut at `limits`."""
    own = points_by_answer(ours, limits.answers)[-1]
    efficiency = token_efficiency(ours, theirs, budget_grid(limits.most_tokens))
    votes = voting_efficiency(ours, theirs, limits.answers)
    return Rivalry(own, efficiency, votes, majority_at_tokens(theirs, limits.answers, own.tokens.mean))
