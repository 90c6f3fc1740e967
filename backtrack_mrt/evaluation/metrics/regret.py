"""Regret: what was missing to a sure answer, over the tokens spent; by the convention of MRT's own code, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from backtrack_mrt.evaluation.metrics.values import Convention, held, value_curve
from backtrack_mrt.types import FloatArray, Scored, Trajectory

ForcedTokens = Callable[[Trajectory], int]  # tokens of one forced answer: its question and the answer


def normalised_regret(tokens: ArrayLike, values: ArrayLike, budget: float) -> float:
    """1 − (1/C0) ∫_0^{C0} V dtokens against an oracle of value 1 (MRT 2503.07572, definition 3.2).

    tokens: sampled tokens at which each value was measured, starting at 0 (shape (E+1,), as V_0 … V_E). Trapezoid,
    linear interpolation at the budget C0, the last value held up to it.
    """
    return float(regrets(tokens, values, [budget])[0])


def regrets(tokens: ArrayLike, values: ArrayLike, budgets: ArrayLike) -> FloatArray:
    """`normalised_regret` at several budgets, shape (C,)."""
    x, y, c = (np.asarray(numbers, dtype=np.float64) for numbers in (tokens, values, budgets))
    area = np.zeros(len(x))  # up to each measured point
    np.cumsum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2, out=area[1:])
    last = np.searchsorted(x, c, side="right") - 1
    regret: FloatArray = 1.0 - (area[last] + (c - x[last]) * (y[last] + np.interp(c, x, y)) / 2) / c
    return regret


def regrets_of(
    scored: Sequence[Scored],
    budgets: Sequence[float],
    convention: Convention = "sampled",
    forced_tokens: ForcedTokens = lambda trajectory: 0,
) -> FloatArray:
    """Normalised regret of every trajectory at every budget, shape (N, C); NaN without values."""
    table = np.full((len(scored), len(budgets)), np.nan)
    for row, s in zip(table, scored, strict=True):
        if s.values is not None:
            row[:] = regrets(*value_curve(s, convention, forced_tokens(s.trajectory)), budgets)
    return table


def by_frozen(scored: Sequence[Scored]) -> list[Scored]:
    """The trajectories with the frozen base's values in place of the policy's own."""
    return [replace(s, values=s.frozen_values) for s in scored]


def cumulative_regret(values: FloatArray, turns: int) -> float:
    """Σ_{j<k} (1 − V_j) over the k prefixes c_0 … c_{k−1}, k = `turns` (MRT 2503.07572, definition 3.1, against an
    oracle of value 1). After its end a trajectory keeps its last value, so that stopping early with a wrong answer
    costs."""
    return float(np.sum(1.0 - held(values, turns)))
