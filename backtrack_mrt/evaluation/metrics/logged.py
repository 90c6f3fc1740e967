"""What is logged after every rollout."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from backtrack_mrt.evaluation.metrics.phases import phase_progress, phases_of
from backtrack_mrt.evaluation.metrics.turns import outcomes_by_answer
from backtrack_mrt.grading import is_evaluated
from backtrack_mrt.types import FloatArray, Group, Scored, StopReason, Trajectory

SILENCE = 1e-9  # a weight up to this is none


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
        "acc@turn_0": float(np.mean([outcomes_by_answer(t, 1)[0] for t in trajectories])),
        "tokens/sampled": float(np.mean([t.sampled_tokens for t in trajectories])),
        "tokens/env": float(np.mean([t.env_tokens for t in trajectories])),
        "turns": float(np.mean([len(t.turns) for t in trajectories])),
    }
    for reason in StopReason:
        metrics[f"stop/{reason}"] = sum(t.stop is reason for t in trajectories) / n
    verdicts = Counter(t.verdict for t in trajectories)
    for verdict in ("right", "wrong", "unparsable", "timeout"):
        metrics[f"grader/{verdict}"] = verdicts[verdict] / n
    if verdicts["partial"]:
        metrics["grader/partial"] = verdicts["partial"] / n
    metrics["grader/unevaluated"] = sum(map(_unevaluated, trajectories)) / n
    for name, count in Counter(turn.violation for t in trajectories for turn in t.turns if turn.violation).items():
        metrics[f"violation/{name}"] = count / n
    ends = [float(s.values[-1]) for s in scored if s.values is not None and s.trajectory.outcome == 1]
    if ends:
        metrics["value/right_end"] = float(np.mean(ends))
    by_turn: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for s in scored:
        if s.values is not None:
            for j, progress in enumerate(s.progress):
                by_turn[j].append((float(s.values[j + 1]), float(progress)))
    for j, pairs in sorted(by_turn.items()):
        values, progress_values = zip(*pairs, strict=True)
        metrics[f"value/turn_{j}"] = float(np.mean(values))
        metrics[f"progress/turn_{j}"] = float(np.mean(progress_values))
    for phase in phases_of(scored):
        found = np.concatenate([phase_progress(s, phase) for s in scored])
        if len(found):
            metrics[f"value/phase_{phase}"], metrics[f"progress/phase_{phase}"] = found.mean(0).tolist()
    return metrics


def without_signal(groups: Sequence[Group], weights: Sequence[FloatArray]) -> float:
    """The share of the groups in which no turn has a weight; `weights` of all members, in order. Canaries, which never
    have one, are left out."""
    rows, heard = iter(weights), list[bool]()
    for group in groups:
        own = [next(rows) for _ in group.members]
        if not group.problem.canary:
            heard.append(any(np.abs(row).max(initial=0.0) > SILENCE for row in own))
    return 1 - sum(heard) / len(heard) if heard else 1.0


def _unevaluated(trajectory: Trajectory) -> bool:
    """Whether the answer equals a numeral and is a calculation left undone, paid or not (`grading.forms`)."""
    if trajectory.verdict == "right" and trajectory.answer is not None:
        return not is_evaluated(trajectory.problem.answer, trajectory.answer)
    return trajectory.verdict == "unevaluated"
