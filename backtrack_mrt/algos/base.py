"""The algorithm seam: a pure map from scored groups to one weight per turn; and the credits that such maps are made of
(docs/method.md; MRT §4, eq. 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from backtrack_mrt.algos.collecting import Collection, Independent
from backtrack_mrt.errors import UserError, short
from backtrack_mrt.types import FloatArray, Group, Trajectory, as_rows


class Algorithm(BaseModel, ABC):
    """Turns the trajectories of a problem into turn weights. Instances are frozen settings; no sampling, no optimiser,
    no tokens. A weight applies to every token that its turn sampled; given turns have none, whatever the weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: ClassVar[str] = ""
    loss: ClassVar[Literal["rl", "ce"]] = "rl"  # clipped policy gradient, or weighted cross-entropy
    needs_values: ClassVar[bool] = False  # whether `turn_weights` wants the members' values
    compares: ClassVar[bool] = False  # whether it compares the members of a group, and so needs more than one
    unit: Literal["token", "turn", "trajectory"] = Field(
        "token", description="what pulls alike in the loss, whatever its length: every token, turn or trajectory"
    )

    @property
    def asks_prover(self) -> bool:
        """Whether the meta-prover runs in training, for the values that are needed."""
        return self.needs_values

    @property
    def needs_critic(self) -> bool:
        """Whether `turn_weights` wants the members' `baselines`: see `backtrack_mrt.training.critic`."""
        return False

    @abstractmethod
    def turn_weights(self, group: Group) -> list[FloatArray]:
        """One array (E_i,) per member i of the group."""

    @final
    def weigh(self, group: Group) -> list[FloatArray]:
        """`turn_weights`, but none for a canary: its gold is wrong, so nothing can be learnt from it. Raises UserError
        for anything but a finite weight per turn."""
        turns = [len(member.trajectory.turns) for member in group.members]
        if group.problem.canary:
            return [np.zeros(number) for number in turns]
        given = self.turn_weights(group)
        weights = as_rows(given) or []
        fitting = [row.shape for row in weights] == [(number,) for number in turns]
        if not fitting or (_finite(_given(group)) and not _finite(weights)):  # else the trainer skips the step
            shown = short(weights if fitting else given)
            reason = f"its turn_weights gave {shown} for {len(turns)} members of {turns} turns"
            remedy = "Return an array for each, with a finite weight per turn."
            raise UserError("algo", type(self).__name__, reason, remedy)
        return weights

    @final
    def weigh_batch(self, groups: Sequence[Group]) -> list[FloatArray]:
        """`weigh` for the members of all groups, one after the other, per token of their turns: divided by the sampled
        tokens of the `unit`, times the batch's mean of these."""
        weights = [row for group in groups for row in self.weigh(group)]
        if self.unit == "token":
            return weights
        sampled = [_sampled_by_turn(member.trajectory) for group in groups for member in group.members]
        units = sampled if self.unit == "turn" else [row.sum(keepdims=True) for row in sampled]
        counted = np.concatenate([*(row[row > 0] for row in units), np.zeros(0)])
        mean = float(counted.mean()) if len(counted) else 0.0
        return [row * mean / np.maximum(tokens, 1) for row, tokens in zip(weights, units, strict=True)]

    @property
    def collection(self) -> Collection:
        """How the trajectories of a group come about."""
        return Independent()

    def objection(self, *, max_answers: int, group_size: int) -> str | None:
        """Why the algorithm cannot run with a protocol of at most `max_answers` answers and groups of `group_size`;
        None if it can."""
        if self.compares and group_size < 2:
            return f"it compares the members of a group, and training.group_size is {group_size}"
        return None


def _given(group: Group) -> list[FloatArray]:
    """The numbers that weights are made of."""
    known = [(np.array(m.trajectory.outcome), m.values, m.baselines) for m in group.members]
    return [numbers for member in known for numbers in member if numbers is not None]


def _finite(arrays: Sequence[FloatArray]) -> bool:
    return all(bool(np.isfinite(numbers).all()) for numbers in arrays)


def _sampled_by_turn(trajectory: Trajectory) -> FloatArray:
    """Sampled tokens of every turn, none for given ones. Shape (E,)."""
    sampled = np.array([float(len(turn.completion.token_ids)) for turn in trajectory.turns])
    sampled[: trajectory.given] = 0.0
    return sampled


class Valued(Algorithm):
    """Reinforcement learning from values: the meta-prover's or, without one, those of the answers that are stated.

    The forced answers that V is the value of can be trained along, by the exact gradient β·∇V_j at the end of every
    turn: see `backtrack_mrt.training.answers`. Credit alone trains nobody to answer when asked to, and V drifts.
    """

    needs_values: ClassVar[bool] = True
    values: Literal["prover", "stated"] = Field(
        "prover",
        description="what V is in training: the meta-prover's chance of an answer forced now, or the grade of the last "
        "answer that was stated, for no tokens",
    )
    answer_weight: float = Field(
        0.0, ge=0, description="weight β of the forced answers, trained along; 0: they are not"
    )

    @property
    def asks_prover(self) -> bool:
        return self.values == "prover"


class SelfTraining(Algorithm):
    """An algorithm that is iterated: collect trajectories with the policy, weigh them, fit them by cross-entropy.

    Trajectories without a weight are dropped; the weights of an iteration are divided by the mean of the
    trajectories' largest ones. Each iteration collects its share of the run's sampled tokens.
    """

    loss: ClassVar[Literal["rl", "ce"]] = "ce"
    iterations: int = Field(2, gt=0, description="times to collect and fit")
    from_base: bool = Field(True, description="fit the base anew in each iteration, instead of going on")


def every_turn(weights_G: ArrayLike, group: Group) -> list[FloatArray]:
    """The same weight for all turns of a member, (G,) → (E_i,) each."""
    members = zip(group.members, np.asarray(weights_G, dtype=np.float64), strict=True)
    return [np.full(len(member.trajectory.turns), weight) for member, weight in members]


def outcome_advantages(outcomes_G: FloatArray, scale: bool = False) -> FloatArray:
    """Â_i = R_i − mean_g R, divided by std_g R + 1e-4 if `scale` (GRPO, DeepSeekMath 2402.03300; G ≥ 2). Shape (G,)."""
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


def rewards_to_go(rewards: FloatArray, decay: float = 1.0) -> FloatArray:
    """Σ_{k ≥ j} γ^{k−j}·r_k for every entry j of the last axis: (…, E) → (…, E)."""
    to_go = np.array(rewards)
    for j in reversed(range(to_go.shape[-1] - 1)):
        to_go[..., j] += decay * to_go[..., j + 1]
    return to_go


def generalised_advantages(outcome: float, baselines: FloatArray, decay: float) -> FloatArray:
    """A_j = Σ_k λ^k δ_{j+k} with δ_j = b(c_{j+1}) − b(c_j), and R − b for the last turn (GAE, 1506.02438, over turns,
    with no discount). λ = 1 is the outcome less the baseline, λ = 0 the turn's own change. (E,) → (E,)."""
    return rewards_to_go(np.diff(np.append(baselines, outcome)), decay)


def length_penalised(outcomes_G: FloatArray, lengths_G: FloatArray, strength: float) -> FloatArray:
    """R·(1 − λ·σ((len − mean)/std)), mean and std of the lengths of the group's right members (2502.04463, eq. 2).
    With fewer than two lengths that differ, all are taken for average (σ = ½). Shape (G,)."""
    right = lengths_G[outcomes_G == 1.0]
    deviation = right.std() if len(right) else 0.0
    z_G = (lengths_G - right.mean()) / deviation if deviation > 0 else np.zeros_like(lengths_G)
    penalised_G: FloatArray = outcomes_G * (1.0 - strength / (1.0 + np.exp(-z_G)))
    return penalised_G
