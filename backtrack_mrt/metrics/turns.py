"""Numbers about trajectories, as pure functions of arrays and frozen data (METHOD: evaluation).

Shapes: P problems, S samples of a problem, E turns, K answers. Intervals are 95 % bootstrap intervals over problems:
the samples of one problem are not independent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from backtrack_mrt.protocol import standing_steps
from backtrack_mrt.types import FloatArray, Phase, Problem, Scored, StopReason, Trajectory

FirstWrongStep = Callable[[Problem, Sequence[str]], int | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` trajectories with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(per_problem: Sequence[Sequence[float]], resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean over all samples, interval by resampling problems with their samples. NaN with no samples at all."""
    sums = np.array([float(np.sum(samples)) for samples in per_problem])
    counts = np.array([len(samples) for samples in per_problem])
    total = int(counts.sum())
    if total == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)  # (resamples, P)
    means = (draws @ sums) / np.maximum(draws @ counts, 1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(sums.sum() / total), float(low), float(high), total)


def normalised_regret(tokens: ArrayLike, values: ArrayLike, budget: float) -> float:
    """1 − (1/C0) ∫_0^{C0} V dtokens against an oracle of value 1 (MRT 2503.07572, definition 3.2).

    tokens: sampled tokens at which each value was measured, starting at 0 (shape (E+1,), as V_0 … V_E). Trapezoid,
    linear interpolation at the budget C0, the last value held up to it.
    """
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(values, dtype=np.float64)
    inside = x < budget
    x_cut = np.append(x[inside], budget)
    y_cut = np.append(y[inside], np.interp(budget, x, y))
    return float(1.0 - np.trapezoid(y_cut, x_cut) / budget)


def tokens_at_turns(trajectory: Trajectory) -> FloatArray:
    """Sampled tokens after 0 … E turns, shape (E+1,)."""
    return np.cumsum([0] + [len(turn.completion.token_ids) for turn in trajectory.turns]).astype(np.float64)


def answers(trajectory: Trajectory) -> list[tuple[int, str]]:
    """The answers given, attempt and revisions, each with the index of its turn."""
    given = [(j, turn.parsed.answer) for j, turn in enumerate(trajectory.turns) if turn.parsed is not None]
    return [(j, answer) for j, answer in given if answer is not None]


def outcomes_by_answer(trajectory: Trajectory, most: int) -> FloatArray:
    """Outcome if the trajectory had been stopped after its k-th answer, k = 1 … `most`, shape (most,).

    The policy does not know the limit, so cutting a long trajectory is the same as sampling with a lower limit. After
    its last answer a trajectory keeps its final outcome.
    """
    outcomes = np.full(most, trajectory.outcome)
    for k, (j, _) in enumerate(answers(trajectory)[:most]):
        if j < len(trajectory.turns) - 1:
            outcomes[k] = float(bool(trajectory.turns[j].right))
    return outcomes


def tokens_by_answer(trajectory: Trajectory, most: int) -> FloatArray:
    """Sampled tokens if the trajectory had been stopped after its k-th answer, shape (most,)."""
    spent = tokens_at_turns(trajectory)
    tokens = np.full(most, spent[-1])
    for k, (j, _) in enumerate(answers(trajectory)[:most]):
        tokens[k] = spent[j + 1]
    return tokens


def backtracks(trajectory: Trajectory, first_wrong_step: FirstWrongStep) -> list[str]:
    """Each backtrack turn as "exact" (returned to just before the first wrong step), "early", "late", or "needless"
    (nothing was wrong). Turns whose steps cannot be checked are left out."""
    kinds = []
    for j, turn in enumerate(trajectory.turns):
        if turn.spec.phase != Phase.BACKTRACK or turn.parsed is None or turn.parsed.step is None:
            continue
        steps = standing_steps(trajectory.turns[:j])
        wrong = first_wrong_step(trajectory.problem, steps)
        if wrong is None:
            continue
        distance = turn.parsed.step - (wrong - 1)
        kinds.append(
            "needless" if wrong > len(steps) else "exact" if distance == 0 else "early" if distance < 0 else "late"
        )
    return kinds


def rollout_metrics(scored: Sequence[Scored]) -> dict[str, float]:
    """What is logged after every rollout, under the run's metric names."""
    n = len(scored)
    trajectories = [s.trajectory for s in scored]
    metrics = {
        "outcome": float(np.mean([t.outcome for t in trajectories])),
        "tokens/sampled": float(np.mean([t.sampled_tokens for t in trajectories])),
        "tokens/env": float(np.mean([t.env_tokens for t in trajectories])),
        "turns": float(np.mean([len(t.turns) for t in trajectories])),
    }
    for reason in StopReason:
        metrics[f"stop/{reason}"] = sum(t.stop is reason for t in trajectories) / n
    verdicts = Counter(t.verdict for t in trajectories)
    for verdict in ("right", "wrong", "unparsable", "timeout"):
        metrics[f"grader/{verdict}"] = verdicts[verdict] / n
    for name, count in Counter(turn.violation for t in trajectories for turn in t.turns if turn.violation).items():
        metrics[f"violation/{name}"] = count / n
    by_turn: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for s in scored:
        if s.values is not None:
            for j, progress in enumerate(s.progress):
                by_turn[j].append((float(s.values[j + 1]), float(progress)))
    for j, pairs in sorted(by_turn.items()):
        values, progress_values = zip(*pairs, strict=True)
        metrics[f"value/turn_{j}"] = float(np.mean(values))
        metrics[f"progress/turn_{j}"] = float(np.mean(progress_values))
    return metrics


def per_problem(scored: Sequence[Scored], numbers: Sequence[Sequence[float]]) -> list[list[float]]:
    """The numbers of every trajectory (any count each), gathered by problem, in order of first appearance."""
    gathered: dict[str, list[float]] = defaultdict(list)
    for s, row in zip(scored, numbers, strict=True):
        gathered[s.trajectory.problem.id].extend(row)
    return list(gathered.values())
