"""Accuracy against tokens: cut at a budget, tokens needed for an accuracy, votes of the base at the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

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


def tokens_to_reach(accuracy: FloatArray, budgets: FloatArray, level: FloatArray) -> FloatArray:
    """Budget at which each curve first reaches its level, by linear interpolation; NaN where it does not, or at level
    0, which takes no tokens.

    accuracy: shape (R, C). budgets: increasing, shape (C,). level: shape (R,).
    """
    reached = accuracy >= level[:, None]
    after = np.argmax(reached, axis=1)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(accuracy))
    low, high = accuracy[rows, before], accuracy[rows, after]
    part = np.divide(level - low, high - low, out=np.zeros(len(accuracy)), where=after > before)
    tokens = budgets[before] + part * (budgets[after] - budgets[before])
    return np.where(reached.any(axis=1) & (level > 0), tokens, np.nan)


def token_efficiency(
    ours: Sequence[Scored], theirs: Sequence[Scored], budgets: FloatArray, shares: Sequence[float] = ACCURACY_SHARES
) -> dict[str, Estimate]:
    """Tokens that they need / tokens that we need for the same accuracy, by that accuracy ("0.425"): above 1 we need
    fewer. Read off at `shares` of the lower of the two highest accuracies. Problems are resampled together where both
    have the same ones in the same order, otherwise apart."""
    indices = [ProblemIndex(side) for side in (ours, theirs)]
    paired = indices[0].ids == indices[1].ids
    tables = [
        index.problem_means(accuracy_at_budgets(side, budgets))
        for index, side in zip(indices, (ours, theirs), strict=True)
    ]
    curves = [  # the data themselves in the first row, then the resamples
        np.vstack([table.mean(0), resampled_means(table, seed=0 if paired else side)])
        for side, table in enumerate(tables)
    ]
    top = np.minimum(*(curve.max(axis=1) for curve in curves))
    found = {}
    for share in shares if top[0] > 0 else ():
        ours_R, theirs_R = (tokens_to_reach(curve, budgets, share * top) for curve in curves)
        ratio, *resampled = theirs_R / ours_R
        problems, n = (min(map(len, sides)) for sides in (tables, (ours, theirs)))
        found[f"{share * top[0]:.3f}"] = of_resamples(float(ratio), np.array(resampled), problems, n)
    return found


def voting_efficiency(
    ours: Sequence[Scored], theirs: Sequence[Scored], limit: int, shares: Sequence[float] = ACCURACY_SHARES
) -> dict[str, Estimate]:
    """`token_efficiency` read off the curves of maj@k against k × tokens instead of off single trajectories, as the
    paper does. A level that one sample already has takes that sample's tokens."""
    indices = [ProblemIndex(side) for side in (ours, theirs)]
    curves = []
    for place, (index, side) in enumerate(zip(indices, (ours, theirs), strict=True)):
        _, votes = voting_curves(ballots(side, limit))
        spent = index.problem_means([[tokens_by_answer(s.trajectory, limit)[-1]] for s in side])
        both = np.hstack([spent, votes])
        paired = indices[0].ids == indices[1].ids
        curves.append(np.vstack([both.mean(0), resampled_means(both, seed=0 if paired else place)]))
    top = np.minimum(*(curve[:, 1:].max(axis=1) for curve in curves))
    found = {}
    for share in shares if top[0] > 0 else ():
        ours_R, theirs_R = (
            np.array([_tokens_for(row[0], row[1:], share * level) for row, level in zip(curve, top, strict=True)])
            for curve in curves
        )
        ratio, *resampled = theirs_R / ours_R
        problems, n = min(len(index.ids) for index in indices), min(len(ours), len(theirs))
        found[f"{share * top[0]:.3f}"] = of_resamples(float(ratio), np.array(resampled), problems, n)
    return found


def _tokens_for(spent: float, votes: FloatArray, level: float) -> float:
    """Tokens at which maj@k of samples that cost `spent` each first reaches the level."""
    tokens = spent * np.arange(1.0, len(votes) + 1)
    return float(tokens_to_reach(votes[None], tokens, np.array([level]))[0])


def majority_at_tokens(scored: Sequence[Scored], limit: int, tokens: float) -> Estimate:
    """maj@k of the samples, interpolated at a total of so many sampled tokens per problem: what a policy must beat
    that spends as many on one trajectory. At fewer tokens than one sample takes it is maj@1, in the samples' favour; no
    estimate at more than all samples took: draw more."""
    index = ProblemIndex(scored)
    _, votes = voting_curves(ballots(scored, limit))
    spent = index.problem_means([[tokens_by_answer(s.trajectory, limit)[-1]] for s in scored])
    k = np.arange(1, votes.shape[1] + 1)
    if tokens > k[-1] * spent.mean():
        return NOTHING
    both = np.hstack([spent, votes])

    def interpolated(row: FloatArray) -> float:
        return float(np.interp(tokens, k * row[0], row[1:]))

    resampled = np.array([interpolated(row) for row in resampled_means(both)])
    return of_resamples(interpolated(both.mean(0)), resampled, len(both), len(scored))
