"""The numbers that a protocol reports of its own: its metrics, and the progress of its moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.errors import RunError
from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex
from backtrack_mrt.protocol import EpisodeProtocol, Share
from backtrack_mrt.types import Scored, Trajectory

PROGRESS_EDGES = np.linspace(-1.0, 1.0, 22)  # 21 bins; the middle one is centred on 0


@dataclass(frozen=True)
class Move:
    """What the moves of one name did to V: V after the last turn − V before the first, and the shares of the moves by
    that number, between `PROGRESS_EDGES` (n = 0 without values)."""

    progress: Estimate
    histogram: list[Estimate]


def protocol_metrics(
    protocol: EpisodeProtocol, trajectories: Sequence[Trajectory], index: ProblemIndex
) -> dict[str, Estimate]:
    """`protocol.metrics` of all trajectories. A number is averaged like every other one, a share pooled. Raises
    RunError if the protocol fails at it."""
    rows = [_metrics(protocol, trajectory) for trajectory in trajectories]
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        numbers = [row.get(name, np.nan) for row in rows]
        if any(isinstance(number, Share) for number in numbers):
            pooled = [number if isinstance(number, Share) else Share(0, 0) for number in numbers]
            found[name] = index.ratio([s.hits for s in pooled], [s.of for s in pooled])
        else:
            found[name] = index.mean(np.array(numbers, dtype=np.float64))
    return found


def _metrics(protocol: EpisodeProtocol, trajectory: Trajectory) -> Mapping[str, float | Share]:
    try:
        reported = protocol.metrics(trajectory)
        return {str(name): n if isinstance(n, Share) else float(n) for name, n in reported.items()}
    except Exception as error:  # whatever a third party's protocol does
        reason = (
            f"{type(protocol).__name__}.metrics fails on a trajectory of problem {trajectory.problem.id}: {error!r}"
        )
        raise RunError(reason, "Correct it, then go on with --resume.") from error


def progress_of_moves(protocol: EpisodeProtocol, scored: Sequence[Scored], index: ProblemIndex) -> dict[str, Move]:
    """Of every kind of move that the protocol knows."""
    moves = [protocol.moves(s.trajectory) for s in scored]
    found = {}
    for name in dict.fromkeys(name for row in moves for name in row):
        progress = [_progress(s, row.get(name, ())) for s, row in zip(scored, moves, strict=True)]
        mean = index.ratio([sum(row) for row in progress], [len(row) for row in progress])
        rounded = [np.clip(np.round(row, 9), -1.0, 1.0) for row in progress]
        counts = np.array([np.histogram(row, PROGRESS_EDGES)[0] for row in rounded], dtype=np.float64)
        totals = np.repeat(counts.sum(1, keepdims=True), counts.shape[1], axis=1)
        found[name] = Move(mean, index.ratios(counts, totals))
    return found


def _progress(scored: Scored, moves: Sequence[range]) -> list[float]:
    values = scored.values
    return [] if values is None else [float(values[move.stop] - values[move.start]) for move in moves]
