"""What is logged after every rollout."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from backtrack_mrt.grading import is_evaluated
from backtrack_mrt.types import Scored, StopReason, Trajectory


def rollout_metrics(scored: Sequence[Scored]) -> dict[str, float]:
    """What is logged after every rollout, under the run's metric names. Canaries are apart: `canary/right`, of which
    about none should be."""
    canaries = [s.trajectory.outcome for s in scored if s.trajectory.problem.canary]
    scored = [s for s in scored if not s.trajectory.problem.canary] or scored
    if not scored:
        return {}
    n = len(scored)
    trajectories = [s.trajectory for s in scored]
    metrics = {"canary/right": float(np.mean(canaries))} if canaries else {}
    metrics |= {
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
    metrics["grader/unevaluated"] = sum(map(_unevaluated, trajectories)) / n
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


def _unevaluated(trajectory: Trajectory) -> bool:
    """Whether the answer equals a numeral and is a calculation left undone, paid or not (`grading.forms`)."""
    if trajectory.verdict == "right" and trajectory.answer is not None:
        return not is_evaluated(trajectory.problem.answer, trajectory.answer)
    return trajectory.verdict == "unevaluated"
