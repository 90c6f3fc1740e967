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
