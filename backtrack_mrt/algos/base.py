"""The algorithm seam: a pure map from scored groups to one weight per turn; and the credits that such maps are made of
(METHOD: MRT §4, eq. 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from backtrack_mrt.types import FloatArray, Group


@dataclass(frozen=True)
class Independent:
    """Every trajectory starts at its problem."""


@dataclass(frozen=True)
class TerminateOrContinue:
    """A group shares a prefix, drawn with the policy and stopped after a random number of turns: half of its members
    answer now (the meta-prover's forced answer), the other half go on."""


@dataclass(frozen=True)
class BestOfN:
    """Every answer of a trajectory is a member of its own, with what came before as given turns; from the second
    answer on it is the best of `n` drawn from the same prefix."""

    n: int


@dataclass(frozen=True)
class Rationalized:
    """Independent; a problem that no member solved is tried again with the gold answer as a hint in the prompt. The
    hint is not part of the trajectory."""


Collection = Independent | TerminateOrContinue | BestOfN | Rationalized


class Algorithm(BaseModel, ABC):
    """Turns the trajectories of a problem into turn weights. Instances are frozen settings; no sampling, no optimiser,
    no tokens. A weight applies to every token that its turn sampled; given turns have none, whatever the weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: ClassVar[str] = ""
    loss: ClassVar[Literal["rl", "ce"]] = "rl"  # clipped policy gradient, or weighted cross-entropy
    needs_values: ClassVar[bool] = False  # whether the meta-prover runs in training

    @abstractmethod
    def turn_weights(self, group: Group) -> list[FloatArray]:
        """One array (E_i,) per member i of the group."""

    def weigh(self, group: Group) -> list[FloatArray]:
        """`turn_weights`, but none for a canary: its gold is wrong, so nothing can be learnt from it."""
        if group.problem.canary:
            return [np.zeros(len(member.trajectory.turns)) for member in group.members]
        return self.turn_weights(group)

    @property
    def collection(self) -> Collection:
        """How the trajectories of a group come about."""
        return Independent()

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        """Why the algorithm cannot run with a protocol of at most `max_answers` answers and groups of `group_size`;
        None if it can."""
        return None


class SelfTraining(Algorithm):
    """An algorithm that is iterated: collect trajectories with the policy, weigh them, fit them by cross-entropy.

    Trajectories without a weight are dropped; the weights of an iteration are divided by their mean. Each iteration
    collects its share of the run's sampled tokens.
    """

    loss: ClassVar[Literal["rl", "ce"]] = "ce"
    iterations: int = Field(2, gt=0, description="times to collect and fit")
    epochs: int = Field(1, gt=0, description="passes over an iteration's trajectories")
    from_base: bool = Field(True, description="fit the base anew in each iteration, instead of going on")


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
