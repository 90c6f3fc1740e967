"""The algorithm seam: a pure map from scored groups to one weight per turn."""

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
