"""Accuracy against tokens: cut at a budget, tokens needed for an accuracy, votes of the base at the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from backtrack_mrt.evaluation.metrics.estimates import NOTHING, Estimate, ProblemIndex, of_resamples, resampled_means
from backtrack_mrt.evaluation.metrics.turns import answers, tokens_at_turns, tokens_by_answer
from backtrack_mrt.evaluation.metrics.voting import ballots, voting_curves
from backtrack_mrt.types import FloatArray, Scored, Trajectory

ACCURACY_SHARES = (0.5, 0.75, 0.9)  # where token efficiency is read off, as shares of the highest common accuracy


def correct_at_budgets(trajectory: Trajectory, budgets: ArrayLike) -> FloatArray:
    """The reward of the trajectory cut at so many sampled tokens, 1 where it has a right answer, shape (C,).

    It is the last answer given by then, whatever a backtrack under way thinks of it. From its own end on a trajectory
    has its outcome.
    """
    spent = tokens_at_turns(trajectory)
    given = [j for j, _ in answers(trajectory)]
    changes = [*(spent[j + 1] for j in given), spent[-1]]
    rewards = [0.0, *(trajectory.turns[j].reward or 0.0 for j in given), trajectory.outcome]
    return np.array(rewards)[np.searchsorted(changes, np.asarray(budgets), side="right")]


def accuracy_at_budgets(scored: Sequence[Scored], budgets: ArrayLike) -> FloatArray:
    """`correct_at_budgets` of every trajectory, shape (N, C)."""
    return np.array([correct_at_budgets(s.trajectory, budgets) for s in scored])


def tokens_to_reach(accuracy: FloatArray, budgets: FloatArray, level: ArrayLike) -> FloatArray:
    """Budget at which each curve first reaches its level, by linear interpolation; NaN where it does not, or at level
    0, which takes no tokens.

    accuracy: shape (R, C), or (C,) for one curve. budgets: increasing, shape (C,), or (R, C). level: shape (R,), or one
    for all.
    """
    accuracy = np.atleast_2d(accuracy)
    budgets, level = np.broadcast_to(budgets, accuracy.shape), np.broadcast_to(level, len(accuracy))
    reached = accuracy >= level[:, None]
    after = np.argmax(reached, axis=1)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(accuracy))
    low, high = accuracy[rows, before], accuracy[rows, after]
    part = np.divide(level - low, high - low, out=np.zeros(len(accuracy)), where=after > before)
    tokens = budgets[rows, before] + part * (budgets[rows, after] - budgets[rows, before])
    return np.where(reached.any(axis=1) & (level > 0), tokens, np.nan)


def token_efficiency(
    ours: Sequence[Scored], theirs: Sequence[Scored], budgets: FloatArray, shares: Sequence[float] = ACCURACY_SHARES
) -> dict[str, Estimate]:
    """Tokens that they need / tokens that we need for the same accuracy, by that accuracy ("0.425"): above 1 we need
    fewer. Read off at `shares` of the lower of the two highest accuracies. Problems are resampled together where both
    have the same ones in the same order, otherwise apart."""

    def means(side: Sequence[Scored]) -> FloatArray:
        return ProblemIndex(side).problem_means(accuracy_at_budgets(side, budgets))

    return _efficiency(ours, theirs, shares, means, lambda accuracy_RC: (budgets, accuracy_RC))


def voting_efficiency(
    ours: Sequence[Scored], theirs: Sequence[Scored], limit: int, shares: Sequence[float] = ACCURACY_SHARES
) -> dict[str, Estimate]:
    """`token_efficiency` read off the curves of maj@k against k × tokens instead of off single trajectories, as the
    paper does. A level that one sample already has takes that sample's tokens."""
    means = partial(_spent_and_votes, limit=limit)
    return _efficiency(ours, theirs, shares, means, lambda both: (both[:, :1] * _counts(both), both[:, 1:]))


def _efficiency(
    ours: Sequence[Scored],
    theirs: Sequence[Scored],
    shares: Sequence[float],
    means: Callable[[Sequence[Scored]], FloatArray],
    curve: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
) -> dict[str, Estimate]:
    """`means` of the trajectories by problem, (P, M); `curve`: budgets and accuracies in rows of such means, (R, M)."""
    sides = (ours, theirs)
    paired = ProblemIndex(ours).ids == ProblemIndex(theirs).ids
    tables = [means(side) for side in sides]
    curves = [  # the data themselves in the first row, then the resamples
        curve(np.vstack([table.mean(0), resampled_means(table, seed=0 if paired else place)]))
        for place, table in enumerate(tables)
    ]
    top = np.minimum(*(accuracy.max(axis=1) for _, accuracy in curves))
    problems, n = (min(map(len, several)) for several in (tables, sides))
    found = {}
    for share in shares if top[0] > 0 else ():
        ours_R, theirs_R = (tokens_to_reach(accuracy, budgets, share * top) for budgets, accuracy in curves)
        ratio, *resampled = theirs_R / ours_R
        found[f"{share * top[0]:.3f}"] = of_resamples(float(ratio), np.array(resampled), problems, n)
    return found


def _spent_and_votes(scored: Sequence[Scored], limit: int) -> FloatArray:
    """By problem the tokens of a sample, then maj@k for k = 1 … S, shape (P, 1 + S)."""
    _, votes = voting_curves(ballots(scored, limit))
    spent = ProblemIndex(scored).problem_means([[tokens_by_answer(s.trajectory, limit)[-1]] for s in scored])
    return np.hstack([spent, votes])


def _counts(both: FloatArray) -> FloatArray:
    """k = 1 … S."""
    return np.arange(1.0, both.shape[1])


def majority_at_tokens(scored: Sequence[Scored], limit: int, tokens: float) -> Estimate:
    """maj@k of the samples, interpolated at a total of so many sampled tokens per problem: what a policy must beat
    that spends as many on one trajectory. At fewer tokens than one sample takes it is maj@1, in the samples' favour; no
    estimate at more than all samples took: draw more."""
    both = _spent_and_votes(scored, limit)
    k = _counts(both)
    if tokens > k[-1] * both[:, 0].mean():
        return NOTHING

    def interpolated(row: FloatArray) -> float:
        return float(np.interp(tokens, k * row[0], row[1:]))

    resampled = np.array([interpolated(row) for row in resampled_means(both)])
    return of_resamples(interpolated(both.mean(0)), resampled, len(both), len(scored))
