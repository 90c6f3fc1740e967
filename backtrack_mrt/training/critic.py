"""A critic of states between turns that costs nothing: b(c_j), the chance that a trajectory which is at c_j ends right.

The meta-prover's V_j is the chance of an answer forced *now*; the policy goes on, so V is a poor baseline for the
outcome R (V_0 is .10 where success is .55). The critic is a logistic regression of R on what is known at c_j anyway:
for every kind of state (last phase × answers given so far) a constant, V, logit V, and the mean outcome of the group's
other members. It is refitted after every batch with the fit before as its prior, whose weight fades, and is asked about
the *next* batch only: a baseline must not have seen the outcome that it is subtracted from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import expit, logit

from backtrack_mrt.types import FloatArray, Group, Scored

FEATURES = 4  # of each kind of state
RIDGE = 1.0  # precision of the first prior, around 0
FADING = 0.75  # what is left of the weight of earlier batches: about the last four count
CLIP = 0.01  # logit V is taken within [CLIP, 1 − CLIP]
NEWTON_STEPS = 25


@dataclass(frozen=True)
class Critic:
    """The fit after some batches. kinds: the kinds of states met so far. weights (K · 4,), precision (K · 4, K · 4):
    mode and curvature of the posterior. batches: how many were fitted."""

    kinds: tuple[str, ...] = ()
    weights: FloatArray = field(default_factory=lambda: np.zeros(0))
    precision: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    batches: int = 0

    def judged(self, group: Group) -> Group:
        """The group with the members' baselines."""
        members = zip(group.members, self.baselines(group), strict=True)
        return replace(group, members=tuple(replace(member, baselines=b) for member, b in members))

    def baselines(self, group: Group) -> list[FloatArray]:
        """b(c_0) … b(c_{E−1}) of each member, shape (E,). Before the first fit, and for kinds of states not met yet,
        the mean outcome of the other members (½ without any)."""
        found = []
        for features, kinds, others in states(group):
            place = {kind: k for k, kind in enumerate(self.kinds)}
            b = np.full(len(kinds), others)
            for j, kind in enumerate(kinds):
                if kind in place:
                    b[j] = expit(features[j] @ self.weights[FEATURES * place[kind] :][:FEATURES])
            found.append(b)
        return found

    def fitted(self, groups: Sequence[Group]) -> Critic:
        """The critic after one more batch, by Newton's method on the logarithm of the posterior."""
        rows = [
            (kind, x, member.trajectory.outcome)
            for group in groups
            if not group.problem.canary
            for member, (features, kinds, _) in zip(group.members, states(group), strict=True)
            for kind, x in zip(kinds, features, strict=True)
            if np.isfinite(x).all()  # a batch with such values is skipped; the fit must outlive it
        ]
        if not rows:
            return self
        critic = self._widened(dict.fromkeys(kind for kind, _, _ in rows))
        place = {kind: k for k, kind in enumerate(critic.kinds)}
        X = np.zeros((len(rows), len(critic.weights)))
        for i, (kind, x, _) in enumerate(rows):
            X[i, FEATURES * place[kind] :][:FEATURES] = x
        outcomes = np.array([outcome for _, _, outcome in rows])
        prior, weights = critic.precision, critic.weights
        for _ in range(NEWTON_STEPS):
            p = expit(X @ weights)
            gradient = X.T @ (outcomes - p) - prior @ (weights - critic.weights)
            curvature = (X * (p * (1 - p))[:, None]).T @ X + prior
            step = np.linalg.solve(curvature, gradient)
            weights = weights + step
            if np.abs(step).max() < 1e-9:
                break
        # What this batch has added fades, the first prior does not: it keeps the fit of rare kinds in bounds.
        first = RIDGE * np.eye(len(weights))
        return replace(
            critic, weights=weights, precision=first + FADING * (curvature - first), batches=self.batches + 1
        )

    def _widened(self, kinds: Mapping[str, None]) -> Critic:
        """With room for new kinds."""
        new = [kind for kind in kinds if kind not in self.kinds]
        size, more = len(self.weights), FEATURES * len(new)
        precision = RIDGE * np.eye(size + more)
        precision[:size, :size] = self.precision
        return replace(
            self, kinds=(*self.kinds, *new), weights=np.append(self.weights, np.zeros(more)), precision=precision
        )

    def as_json(self) -> dict[str, Any]:
        """What a checkpoint keeps: floats survive JSON bit for bit."""
        arrays = {"weights": self.weights.tolist(), "precision": self.precision.tolist()}
        return {"kinds": list(self.kinds), "batches": self.batches, **arrays}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Critic:
        """The critic of a checkpoint."""
        size = len(saved["weights"])
        precision = np.array(saved["precision"], dtype=np.float64).reshape(size, size)
        return cls(tuple(saved["kinds"]), np.array(saved["weights"]), precision, int(saved["batches"]))


def explained_variance(groups: Sequence[Group]) -> float:
    """1 − Var(R − b) / Var(R) over the states before turns: 1 for a critic that knows, 0 for one that says the mean.
    NaN where all outcomes are equal, and without turns. Canaries, whose outcomes it was not fitted to, are left out."""
    pairs = [
        (member.trajectory.outcome, b)
        for group in groups
        if not group.problem.canary
        for member in group.members
        for b in (() if member.baselines is None else member.baselines)
    ]
    outcomes, baselines = np.array(pairs).reshape(-1, 2).T
    known = len(outcomes) > 0 and np.ptp(outcomes) > 0
    return float(1 - np.var(outcomes - baselines) / np.var(outcomes)) if known else float("nan")


def states(group: Group) -> list[tuple[FloatArray, list[str], float]]:
    """For each member what is known before its turns, at c_0 … c_{E−1}: features (E, 4) and kinds (E), and the mean
    outcome of the others. After its last turn the outcome itself is known."""
    outcomes = group.outcomes
    others = (outcomes.sum() - outcomes) / (len(outcomes) - 1) if len(outcomes) > 1 else np.full(len(outcomes), 0.5)
    return [(_features(m, o), _kinds(m), float(o)) for m, o in zip(group.members, others, strict=True)]


def _features(member: Scored, others: float) -> FloatArray:
    if member.values is None:
        raise ValueError("the critic needs the meta-prover's values")
    V = member.values[:-1]
    one = np.ones_like(V)
    return np.stack([one, V, logit(V.clip(CLIP, 1 - CLIP)), others * one], axis=1)


def _kinds(member: Scored) -> list[str]:
    kinds, answers = ["start"], 0
    for turn in member.trajectory.turns[:-1]:
        answers += turn.answer is not None
        kinds.append(f"{turn.spec.phase}/{answers}")
    return kinds[: len(member.trajectory.turns)]
