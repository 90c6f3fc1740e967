"""Who is credited with what: pure functions from outcomes and values to per-turn numbers (METHOD: MRT §4, eq. 2)."""

from __future__ import annotations

import numpy as np

from backtrack_mrt.types import FloatArray


def outcome_advantages(outcomes_G: FloatArray, scale: bool = False) -> FloatArray:
    """Â_i = R_i − mean_g R, divided by std_g R + 1e-4 if `scale` (GRPO, DeepSeekMath 2402.03300). Shape (G,)."""
    advantages_G: FloatArray = outcomes_G - outcomes_G.mean()
    if scale:
        advantages_G /= outcomes_G.std(ddof=1) + 1e-4
    return advantages_G


def turn_progress(values: FloatArray) -> FloatArray:
    """p_j = V_{j+1} − V_j: every turn is credited with its own progress. (E+1,) → (E,)."""
    return np.diff(values)


def progress_to_go(values: FloatArray) -> FloatArray:
    """Σ_{k ≥ j} p_k = V_E − V_j: a turn is credited with all progress from it on; V_j, which depends only on the state
    before the turn, is its baseline. (E+1,) → (E,)."""
    to_go: FloatArray = values[-1] - values[:-1]
    return to_go


def length_penalised(outcomes_G: FloatArray, lengths_G: FloatArray, strength: float) -> FloatArray:
    """R·(1 − λ·σ((len − mean)/std)), mean and std of the lengths of the group's right members (2502.04463, eq. 2).
    With fewer than two lengths that differ, all are taken for average (σ = ½). Shape (G,)."""
    right = lengths_G[outcomes_G == 1.0]
    deviation = right.std() if len(right) else 0.0
    z_G = (lengths_G - right.mean()) / deviation if deviation > 0 else np.zeros_like(lengths_G)
    penalised_G: FloatArray = outcomes_G * (1.0 - strength / (1.0 + np.exp(-z_G)))
    return penalised_G
