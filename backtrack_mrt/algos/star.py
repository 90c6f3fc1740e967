"""STaR: fit the trajectories that were right (Zelikman et al. 2203.14465)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backtrack_mrt.algos.base import SelfTraining, every_turn
from backtrack_mrt.algos.collecting import Collection, Independent, Rationalized
from backtrack_mrt.types import FloatArray, Group


class Star(SelfTraining):
    """A_{i,j} = R_i: cross-entropy on all turns of the trajectories whose final answer is right, from the base anew in
    each iteration.

    With `rationalize`, problems that no trajectory solved are tried again with the gold answer as a hint. Left out: the
    growing number of epochs per iteration.
    """

    summary: ClassVar[str] = "STaR: fit the right trajectories, from the base anew"
    rationalize: bool = Field(False, description="try unsolved problems again with the gold answer as a hint")

    @property
    def collection(self) -> Collection:
        return Rationalized() if self.rationalize else Independent()

    def turn_weights(self, group: Group) -> list[FloatArray]:
        return every_turn(group.outcomes, group)
