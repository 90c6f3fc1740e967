"""Curves of the meta-prover's values, hand-drawn."""

from __future__ import annotations

import numpy as np
from support.hand_worked import CORRECTED

from backtrack_mrt.evaluation.metrics.values import (
    value_curve,
    values_at_tokens,
    values_at_turns,
)
from backtrack_mrt.types import Scored

VALUES = np.array([0.1, 0.2, 0.2, 0.4, 0.8, 0.9])
SCORED = Scored(CORRECTED, VALUES)  # turns of 10, 4, 2, 6, 3 tokens; 2 prompt ids, 2 instruction ids per turn


def test_the_conventions_differ_in_tokens_and_start() -> None:
    tokens, values = value_curve(SCORED)
    np.testing.assert_array_equal(tokens, [0, 10, 14, 16, 22, 25])
    np.testing.assert_array_equal(values, VALUES)
    tokens, values = value_curve(SCORED, "mrt-official", forced_tokens=5)
    np.testing.assert_array_equal(tokens, [0, 7, 19, 25, 29, 37, 42])
    np.testing.assert_array_equal(values, [0, *VALUES])


def test_value_curves_hold_the_last_value() -> None:
    np.testing.assert_allclose(values_at_turns([SCORED], 7), [[*VALUES, 0.9, 0.9]])
    np.testing.assert_allclose(values_at_tokens([SCORED], np.array([0, 5, 10, 19, 30])), [[0.1, 0.15, 0.2, 0.6, 0.9]])
