"""Both regrets of MRT's released notebooks, on stored curves: the numbers below are what the notebooks' own code gives
for them (regret.ipynb and regret_additional.ipynb of github.com/CMU-AIRe/MRT, run once)."""

from __future__ import annotations

import numpy as np
import pytest

from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.evaluation.metrics.estimates import ProblemIndex
from backtrack_mrt.evaluation.metrics.values import envelope_regret, regrets_of
from backtrack_mrt.types import Completion, Finish, Problem, Scored, StopReason, Trajectory, Turn, TurnSpec

CUTOFFS = [4096, 8192, 12288, 16384]
CURVES = [  # tokens of prompt, episodes and forced answer, and pass@1 there
    ([600, 1900, 4200, 7000, 9100], [0.0625, 0.125, 0.3125, 0.75, 0.875]),
    ([450, 3000, 5200], [0.25, 0.0, 0.5]),
    ([700, 2500, 8192, 12000, 20000], [0.0, 0.0625, 0.25, 0.5, 1.0]),
]
REGRETS = [
    [0.8506614087975544, 0.6255447242373512, 0.460693359375, 0.37677001953125],
    [0.8751216264204545, 0.7044677734375, 0.6363118489583333, 0.60223388671875],
    [0.951671415370531, 0.8845672607421875, 0.7949042154947916, 0.6846781616210937],
]
MEAN = [0.8924848168628466, 0.7381932528056796, 0.6306364746093749, 0.5545606892903645]

VOTES = [  # maj@1, 2, 4, 8 of answers forced after each step
    [[0.25, 0.25, 0.4, 0.5], [0.5, 0.5, 0.7, 0.8], [0.3, 0.3, 0.2, 0.1], [1, 1, 1, 1]],
    [[0, 0, 0, 0], [0.2, 0.2, 0.1, 0.05]],
    [[0.6, 0.6, 0.75, 0.9], [0.4, 0.4, 0.3, 0.25], [0.4, 0.4, 0.45, 0.5]],
]
ENVELOPE = [[0.0, 0.22885572139303484, 0.13897280966767372], [0.0] * 3, [0.2907801418439717] + [0.1855203619909503] * 2]
ENVELOPE_MEAN = [0.09692671394799057, 0.13812536112799503, 0.10816439055287468]


def with_curve(name: str, tokens: list[int], values: list[float], forced: int = 100) -> Scored:
    """A trajectory whose prefixes, with a forced answer of `forced` tokens, are so long."""
    lengths = np.diff(tokens)
    turns = [
        Turn(TurnSpec(BacktrackPhase.ATTEMPT, 9999), "", None, (3,) * 7, Completion((5,) * n, (0.0,) * n, Finish.CUT))
        for n in (lengths - 7).tolist()
    ]
    prompt = (1,) * (tokens[0] - forced)
    trajectory = Trajectory(Problem(name, "q", "2"), prompt, tuple(turns), StopReason.FINISHED, outcome=1.0)
    return Scored(trajectory, np.array(values))


def test_the_first_regret() -> None:
    scored = [with_curve(f"p{i}", *curve) for i, curve in enumerate(CURVES)]
    found = regrets_of(scored, CUTOFFS, "mrt-official", lambda trajectory: 100)
    np.testing.assert_allclose(found, REGRETS, rtol=1e-12)
    assert [e.mean for e in ProblemIndex(scored).means(found)] == pytest.approx(MEAN, rel=1e-12)


def whole(steps: list[list[float]]) -> np.ndarray:
    """With maj@3, 5, 6, 7, at which the formula does not look."""
    return np.array([[one, two, -1, four, -1, -1, -1, eight] for one, two, four, eight in steps])


def test_the_second_regret() -> None:
    """Its mean leaves out trajectories whose envelope has no area; the notebook's second one of one step has some."""
    found = np.array([[envelope_regret(whole(steps), budget) for budget in (1, 2, 3)] for steps in VOTES])
    np.testing.assert_allclose(found, ENVELOPE, rtol=1e-12)
    np.testing.assert_allclose(np.nanmean(found, axis=0), ENVELOPE_MEAN, rtol=1e-12)
    assert np.isnan(envelope_regret(np.zeros((4, 8)), 3))
