"""The meta-prover's values over a trajectory, as curves; and regret, what was missing to a sure answer over the tokens
spent, by the convention of MRT's own code, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from backtrack_mrt.evaluation.metrics.turns import tokens_at_turns
from backtrack_mrt.types import FloatArray, Scored, Trajectory

Convention = Literal["sampled", "mrt-official"]
ForcedTokens = Callable[[Trajectory], int]  # tokens of one forced answer: its question and the answer


def value_curve(
    scored: Scored, convention: Convention = "sampled", forced_tokens: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Tokens and values, from token 0 on.

    "sampled": V_0 … V_E against sampled tokens. "mrt-official": (0, 0) first, then V_0 … V_E against all tokens that
    were needed for them: prompt, turns, instructions, and `forced_tokens` of the forced answer itself (the convention
    of MRT's released analysis code).
    """
    assert scored.values is not None
    trajectory = scored.trajectory
    if convention == "sampled":
        return tokens_at_turns(trajectory), scored.values
    context = np.cumsum([len(trajectory.prompt_ids)] + [len(turn) for turn in trajectory.turns]) + forced_tokens
    return np.append(0.0, context), np.append(0.0, scored.values)


def held(numbers: FloatArray, points: int) -> FloatArray:
    """The first `points` numbers; the last one again and again where there are fewer."""
    return numbers[np.minimum(np.arange(points), len(numbers) - 1)]


def values_at_turns(scored: Sequence[Scored], turns: int) -> FloatArray:
    """V_0 … V_k (k = `turns`), the last value held, shape (N, k+1); NaN without values."""
    nothing = np.full(turns + 1, np.nan)
    return np.array([nothing if s.values is None else held(s.values, turns + 1) for s in scored])


def values_at_tokens(scored: Sequence[Scored], tokens: FloatArray) -> FloatArray:
    """V interpolated at numbers of sampled tokens (C,), the last value held, shape (N, C); NaN without values."""
    nothing = np.full(len(tokens), np.nan)
    return np.array([nothing if s.values is None else np.interp(tokens, *value_curve(s)) for s in scored])


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


def envelope_regret(votes: FloatArray, steps: int) -> float:
    """The second regret of MRT's released code: what was lost by going on where a vote would have been better.

    votes: maj@k of answers forced after j turns, j = 0 … E, k = 1 … K with K ≥ 8, shape (E+1, K). After each of the
    first `steps` turns there are two ways to spend five more units: votes (k = 1, 2, 4, and 4 and 8 mixed at 6 units),
    or going on (from maj@1 here to maj@1 after the turn, linearly). Regret is the share of the area under the better of
    both that lies above going on; NaN where that area is 0, as there.
    """
    units = np.array([1.0, 2.0, 4.0, 6.0])
    lost = best = 0.0
    for here, there in pairwise(votes[: steps + 1]):
        voting = np.array([here[0], here[1], here[3], (here[3] + here[7]) / 2])
        going_on = here[0] + (units - 1) / 5 * (there[0] - here[0])
        better = np.maximum(voting, going_on)
        best += float(np.trapezoid(better, units))
        lost += float(np.trapezoid(better - going_on, units))
    return lost / best if best else float("nan")


def by_frozen(scored: Sequence[Scored]) -> list[Scored]:
    """The trajectories with the frozen base's values in place of the policy's own."""
    return [replace(s, values=s.frozen_values) for s in scored]


def cumulative_regret(values: FloatArray, turns: int) -> float:
    """Σ_{j<k} (1 − V_j) over the k prefixes c_0 … c_{k−1}, k = `turns` (MRT 2503.07572, definition 3.1, against an
    oracle of value 1). After its end a trajectory keeps its last value, so that stopping early with a wrong answer
    costs."""
    return float(np.sum(1.0 - held(values, turns)))
