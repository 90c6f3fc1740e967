"""MRT by self-training: STaR on the turns that made progress (Qu et al. 2503.07572, §5)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.types import FloatArray, Group, Scored


class MrtStar(SelfTraining):
    """Every prefix is valued. Of a problem's right trajectories the `keep` that wandered least are fitted, each up to
    where its value is highest, and there without the turns that lowered it.

    The cut is the longest prefix whose value is the trajectory's highest: thinking on gains nothing from there. A
    trajectory counts only if an answer at its highest value is more often right than wrong (V ≥ ½). It wandered by the
    falls of its value before the cut, Σ max(0, −p_j); falls up to `tolerance` are noise. Trajectories that wandered
    alike keep their order, however long they are. (Mean progress per turn would not do: it is (V_E − V_0)/E, and keeps
    the shortest ones, see `star_shortest`.)
    """

    summary: ClassVar[str] = "STaR on the turns that made progress (MRT)"
    needs_values: ClassVar[bool] = True
    keep: int = Field(2, gt=0, description="trajectories kept per problem")
    tolerance: float = Field(0.05, ge=0, lt=1, description="differences of value up to this are noise")

    def turn_weights(self, group: Group) -> list[FloatArray]:
        cuts = [self._cut(m) if m.trajectory.outcome == 1.0 else 0 for m in group.members]
        falls = [self._falls(m)[:cut] for m, cut in zip(group.members, cuts, strict=True)]
        stopping = [i for i, cut in enumerate(cuts) if cut > 0]
        kept = set(sorted(stopping, key=lambda i: float(falls[i].sum()))[: self.keep])
        weights = [np.zeros(len(m.trajectory.turns)) for m in group.members]
        for i in kept:
            weights[i][: cuts[i]] = falls[i] == 0
        return weights

    def _cut(self, member: Scored) -> int:
        """Turns up to the last of the highest values; 0 where stopping there would rather be wrong."""
        assert member.values is not None  # needs_values
        highest = float(member.values.max())
        return int(np.flatnonzero(member.values >= highest - self.tolerance)[-1]) if highest >= 0.5 else 0

    def _falls(self, member: Scored) -> FloatArray:
        """How far each turn lowered the value, shape (E,)."""
        return np.where(member.progress < -self.tolerance, -member.progress, 0.0)
