"""The meta-prover's values over a trajectory, as curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from backtrack_mrt.evaluation.metrics.turns import tokens_at_turns
from backtrack_mrt.types import FloatArray, Scored

Convention = Literal["sampled", "mrt-official"]


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
