"""What the turns of each phase cost and do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex
from backtrack_mrt.types import FloatArray, Scored


@dataclass(frozen=True)
class PhaseResult:
    """The turns of one phase: how many a trajectory has; of one of them its sampled tokens, its progress (n = 0 without
    values), and the share that keep to the protocol."""

    turns: Estimate
    tokens: Estimate
    progress: Estimate
    clean: Estimate


def by_phase(scored: Sequence[Scored], index: ProblemIndex) -> dict[str, PhaseResult]:
    """In the order in which the phases come about."""
    return {phase: _result(scored, index, phase) for phase in phases_of(scored)}


def phases_of(scored: Sequence[Scored]) -> list[str]:
    """The phases, those that come first in a trajectory first."""
    first: dict[str, int] = {}
    for s in scored:
        for j, turn in enumerate(s.trajectory.turns):
            phase = str(turn.spec.phase)
            first[phase] = min(j, first.get(phase, j))
    return sorted(first, key=lambda phase: (first[phase], phase))


def phase_progress(scored: Scored, phase: str) -> FloatArray:
    """Rows of V after a turn of the phase and of the turn's progress, shape (turns, 2); none without values."""
    turns, values = scored.trajectory.turns, scored.values
    if values is None:
        return np.empty((0, 2))
    places = [j for j, turn in enumerate(turns) if turn.spec.phase == phase]
    found = [(values[j + 1], values[j + 1] - values[j]) for j in places]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _result(scored: Sequence[Scored], index: ProblemIndex, phase: str) -> PhaseResult:
    turns = [[turn for turn in s.trajectory.turns if turn.spec.phase == phase] for s in scored]
    progress = [phase_progress(s, phase)[:, 1] for s in scored]
    known = [row[np.isfinite(row)] for row in progress]
    counts = [len(row) for row in turns]
    return PhaseResult(
        index.mean(counts),
        index.ratio([sum(len(turn.completion.token_ids) for turn in row) for row in turns], counts),
        index.ratio([row.sum() for row in known], [len(row) for row in known]),
        index.ratio([sum(turn.violation is None for turn in row) for row in turns], counts),
    )
