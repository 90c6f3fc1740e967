"""What thinking on is worth: overthinking, starvation, answers lost again, votes against going on (MRT 2503.07572, §5:
the case study of R1), by problem set, read off trajectories with values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex
from backtrack_mrt.evaluation.metrics.problem_sets import set_of
from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.evaluation.metrics.turns import tokens_at_turns
from backtrack_mrt.types import Scored

ALL = "all"


@dataclass(frozen=True)
class Thresholds:
    """high: the V from which on an answer is as good as sure. rising: the progress of a turn that counts as a rise."""

    high: float = 0.9
    rising: float = 0.05


@dataclass(frozen=True)
class Thinking:
    """Of one problem set; `summary` has what `evaluate` says of the same trajectories ([maj@p]_j in its extras)."""

    problems: int
    summary: Summary
    sure: Estimate  # share of the trajectories whose V is high at some time
    overthinking: Estimate  # the tax: sampled tokens after V was first high, per trajectory
    overthinking_share: Estimate  # of all sampled tokens, those
    starved: Estimate  # share that stopped without a high V though the last turn raised it
    last_rise: Estimate  # progress of the last turn of those
    lost: Estimate  # right → wrong: share whose V was high and that end wrong
    after_turn: Mapping[str, Estimate]  # right answers if all stop after j turns and answer once, by j: V_j


def thinking_by_set(
    scored: Sequence[Scored], thresholds: Thresholds, summarised: Callable[[Sequence[int]], Summary]
) -> dict[str, Thinking]:
    """Each problem set by its name, behind them all together if there are several. All trajectories have values;
    `summarised` are those at these places."""
    sets: dict[str, list[int]] = defaultdict(list)
    for i, s in enumerate(scored):
        sets[set_of(s.trajectory.problem) or ALL].append(i)
    if len(sets) > 1:
        sets[ALL] = list(range(len(scored)))
    return {
        name: thinking_of([scored[i] for i in places], thresholds, summarised(places)) for name, places in sets.items()
    }


def thinking_of(scored: Sequence[Scored], thresholds: Thresholds, summary: Summary) -> Thinking:
    """The numbers of these trajectories, with 95 % intervals over problems."""
    index = ProblemIndex(scored)
    table = np.array([_numbers(s, thresholds) for s in scored], dtype=np.float64)
    sure, tax, starved, last_rise, lost = index.means(table)
    share = index.ratio(table[:, 1], [s.trajectory.sampled_tokens for s in scored])
    values = {str(j): value for j, value in enumerate(summary.value_at_turn)}
    return Thinking(len(index.ids), summary, sure, tax, share, starved, last_rise, lost, values)


def _numbers(scored: Scored, thresholds: Thresholds) -> tuple[float, ...]:
    """Of one trajectory: sure, overthinking, starved, last_rise (NaN unless starved), lost."""
    assert scored.values is not None
    values, tokens = scored.values, tokens_at_turns(scored.trajectory)
    high = np.flatnonzero(values >= thresholds.high)
    sure = len(high) > 0
    tax = tokens[-1] - tokens[high[0]] if sure else 0.0
    last = values[-1] - values[-2] if len(values) > 1 else 0.0
    starved = values[-1] < thresholds.high and last >= thresholds.rising
    return sure, tax, starved, last if starved else np.nan, sure and scored.trajectory.outcome < 1.0
