"""Regret by hand, in both conventions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.hand_worked import CORRECTED

from backtrack_mrt.evaluation.metrics.values import cumulative_regret, regrets, regrets_of
from backtrack_mrt.types import Scored

VALUES = np.array([0.1, 0.2, 0.2, 0.4, 0.8, 0.9])
SCORED = Scored(CORRECTED, VALUES)  # turns of 10, 4, 2, 6, 3 tokens; 2 prompt ids, 2 instruction ids per turn


def test_regrets_at_several_budgets() -> None:
    """V rises from 0 to 1 over 10 tokens and stays."""
    np.testing.assert_allclose(regrets([0, 10], [0, 1], [5, 10, 20]), [1 - 1.25 / 5, 0.5, 0.25])
    np.testing.assert_allclose(regrets([0, 4, 8], [0.5, 0.5, 1], [2, 4, 6, 8]), [0.5, 0.5, 1 - 3.25 / 6, 1 - 5 / 8])


def test_regret_in_both_conventions_by_hand() -> None:
    assert regrets_of([SCORED], [10])[0, 0] == pytest.approx(1 - 0.15)
    # (0, 0) → (7, .1) → (19, .2): area to 7 is .35, from 7 to 13 it is 6 × .125.
    official = regrets_of([SCORED, replace(SCORED, values=None)], [13], "mrt-official", lambda trajectory: 5)
    assert official[0, 0] == pytest.approx(1 - (0.35 + 0.75) / 13)
    assert np.isnan(official[1, 0])


def test_cumulative_regret_holds_the_last_value() -> None:
    assert cumulative_regret(np.array([0.5, 1.0]), turns=1) == 0.5
    assert cumulative_regret(np.array([0.5, 1.0]), turns=2) == 0.5
    assert cumulative_regret(np.array([0.5, 0.25]), turns=3) == pytest.approx(0.5 + 2 * 0.75)
    assert cumulative_regret(VALUES, turns=2) == pytest.approx(0.9 + 0.8)
