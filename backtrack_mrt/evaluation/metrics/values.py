"""The meta-prover's values over a trajectory: curves, regret, progress of the backtracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from backtrack_mrt.evaluation.metrics.turns import tokens_at_turns
from backtrack_mrt.types import FloatArray, Phase, Scored, Trajectory

Convention = Literal["sampled", "mrt-official"]
ForcedTokens = Callable[[Trajectory], int]  # tokens of one forced answer: its question and the answer

PROGRESS_EDGES = np.linspace(-1.0, 1.0, 22)  # 21 bins; the middle one is centred on 0


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


def held(numbers: FloatArray, points: int) -> FloatArray:
    """The first `points` numbers; the last one again and again where there are fewer."""
    return numbers[np.minimum(np.arange(points), len(numbers) - 1)]


def cumulative_regret(values: FloatArray, turns: int) -> float:
    """Σ_j (1 − V_j) over the prefixes c_0 … c_k, k = `turns` (MRT 2503.07572, definition 3.1, against an oracle of
    value 1). After its end a trajectory keeps its last value, so that stopping early with a wrong answer costs."""
    return float(np.sum(1.0 - held(values, turns + 1)))


def values_at_turns(scored: Sequence[Scored], turns: int) -> FloatArray:
    """V_0 … V_k (k = `turns`), the last value held, shape (N, k+1); NaN without values."""
    nothing = np.full(turns + 1, np.nan)
    return np.array([nothing if s.values is None else held(s.values, turns + 1) for s in scored])


def values_at_tokens(scored: Sequence[Scored], tokens: FloatArray) -> FloatArray:
    """V interpolated at numbers of sampled tokens (C,), the last value held, shape (N, C); NaN without values."""
    nothing = np.full(len(tokens), np.nan)
    return np.array([nothing if s.values is None else np.interp(tokens, *value_curve(s)) for s in scored])


def backtrack_progress(scored: Scored) -> list[float]:
    """Progress of every backtrack and the revision after it, taken together: V after the revision − V before the
    backtrack. A backtrack that ended the trajectory stands alone."""
    if scored.values is None:
        return []
    turns, values = scored.trajectory.turns, scored.values
    starts = [j for j, turn in enumerate(turns) if turn.spec.phase == Phase.BACKTRACK]
    return [float(values[min(j + 2, len(turns))] - values[j]) for j in starts]


def progress_counts(scored: Sequence[Scored]) -> FloatArray:
    """Backtracks of every trajectory by their progress, shape (N, 21)."""
    rounded = [np.clip(np.round(backtrack_progress(s), 9), -1.0, 1.0) for s in scored]
    return np.array([np.histogram(row, PROGRESS_EDGES)[0] for row in rounded], dtype=np.float64)
