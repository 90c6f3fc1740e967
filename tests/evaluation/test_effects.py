"""Verdicts on the paper's effects, from made-up runs."""

from __future__ import annotations

import pytest

from backtrack_mrt.evaluation.effects import Effect, table
from backtrack_mrt.evaluation.metrics.estimates import Estimate, over_seeds


@pytest.mark.parametrize(
    ("low", "high", "above", "null", "verdict"),
    [
        (0.1, 0.3, True, 0.0, "shown"),
        (-0.3, -0.1, True, 0.0, "reversed"),
        (-0.1, 0.3, True, 0.0, "not shown"),
        (-0.3, -0.1, False, 0.0, "shown"),
        (0.1, 0.3, False, 0.0, "reversed"),
        (1.1, 1.3, True, 1.0, "shown"),
        (0.9, 1.3, True, 1.0, "not shown"),
        (float("nan"), float("nan"), True, 0.0, "a seed has no such number"),
    ],
)
def test_verdicts(low: float, high: float, above: bool, null: float, verdict: str) -> None:
    effect = Effect("1 gain", "mrt-rl − grpo", Estimate(0.2, low, high, 5), above, null)
    assert effect.verdict == verdict
    assert f"**{verdict}**" in table([effect])


@pytest.mark.parametrize(("low", "verdict"), [(2.1, "shown"), (1.9, "not shown"), (1.2, "smaller")])
def test_less_than_the_paper_s_size_is_not_the_other_way_round(low: float, verdict: str) -> None:
    assert Effect("1 gain", "ratio", Estimate(low + 0.2, low, low + 0.4, 5), null=2.0, sized=True).verdict == verdict


def test_one_seed_is_told_as_such() -> None:
    row = table([Effect("1 gain", "mrt-rl − grpo", over_seeds([0.2]))]).splitlines()[-1]
    assert row == "| 1 gain | mrt-rl − grpo | above 0 | 0.200 | **one seed: no interval** |"
