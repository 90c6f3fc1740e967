"""RISE: learn from one's own better answers, turn by turn (Qu et al. 2407.18219)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.algos.collecting import BestOfN, Collection
from backtrack_mrt.types import FloatArray, Group, Trajectory


class Rise(SelfTraining):
    """Every answer of a trajectory is a member: the turns before it are given, the turns that lead from the previous
    answer to it (with `retry` one turn, with `backtrack` detect, backtrack and revise) carry the weight exp(r/τ), r = 1
    if it is right. From the second answer on it is the best of `candidates` that the model itself drew.

    Which members count, `criterion`: all; `better` than the answer before (an attempt: right); the `best` of the
    problem's; `success`: the right ones. Members with the same tokens count once. One that found an error in a right
    answer never counts: else a model could take an answer back for the reward of giving it again. `centred` subtracts
    the mean reward of the members kept, r − mean r, as the paper's text has it; after division by the mean weight this
    is the same within a problem, but weighs problems alike that are hard and easy.
    """

    summary: ClassVar[str] = "RISE: fit the best of own revisions, turn by turn"
    criterion: Literal["all", "better", "best", "success"] = Field("better", description="which answers are fitted")
    temperature: float = Field(0.4, gt=0, description="τ of the weight exp(reward / τ)")
    candidates: int = Field(16, gt=0, description="continuations of which the best is fitted (n)")
    centred: bool = Field(False, description="weight exp((reward − the problem's mean) / τ)")
    from_base: bool = Field(False, description="fit the base anew in each iteration, instead of going on")

    @property
    def collection(self) -> Collection:
        return BestOfN(self.candidates)

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        if max_answers < 2:
            return "RISE learns from revisions, and this protocol gives none (use retry or backtrack)"
        return None

    def turn_weights(self, group: Group) -> list[FloatArray]:
        trajectories = [member.trajectory for member in group.members]
        rewards = [_reward(trajectory, len(trajectory.turns)) for trajectory in trajectories]
        best = max(rewards)
        seen: set[tuple[int, ...]] = set()
        kept = []
        for i, trajectory in enumerate(trajectories):
            before = _reward(trajectory, trajectory.given)
            counts = {
                "all": True,
                "better": rewards[i] > before,
                "best": rewards[i] == best,
                "success": rewards[i] == 1.0,
            }
            taken_back = any(t.parsed and t.parsed.verdict is False for t in trajectory.turns[trajectory.given :])
            false_alarm = before == 1.0 and taken_back
            if counts[self.criterion] and trajectory.token_ids not in seen and not false_alarm:
                seen.add(trajectory.token_ids)
                kept.append(i)
        centre = float(np.mean([rewards[i] for i in kept])) if self.centred and kept else 0.0
        weights = {i: math.exp((rewards[i] - centre) / self.temperature) for i in kept}
        return [
            np.where(np.arange(len(t.turns)) < t.given, 0.0, weights.get(i, 0.0)) for i, t in enumerate(trajectories)
        ]


def _reward(trajectory: Trajectory, turns: int) -> float:
    """What the last answer in the first `turns` turns is worth."""
    rewards = [turn.reward for turn in trajectory.turns[:turns] if turn.reward is not None]
    return rewards[-1] if rewards else 0.0
