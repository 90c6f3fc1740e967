"""Results per problem set, and their average over the sets: pooled, a set of 500 problems would drown one of 30."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex, of_resamples, resampled_means
from backtrack_mrt.evaluation.metrics.turns import outcomes_by_answer, tokens_by_answer
from backtrack_mrt.evaluation.metrics.values import by_frozen, regrets_of
from backtrack_mrt.evaluation.metrics.voting import ballots, voting_curves
from backtrack_mrt.types import FloatArray, Problem, Scored

AVERAGE = "average"  # over the sets, in place of a set's name


@dataclass(frozen=True)
class SetResult:
    """One set, or the average over sets, in which each counts the same. samples: trajectories of a problem, the fewest.
    Accuracy and tokens are those of the trained limit, regret that of the trained budget; `pass_at_k` and `maj_at_k`
    are for k = 1 … samples and cost k × tokens."""

    problems: int
    samples: int
    accuracy: Estimate
    accuracy_prolonged: Estimate
    first_attempt: Estimate
    tokens: Estimate
    normalised_regret: Estimate
    normalised_regret_frozen: Estimate
    pass_at_k: list[Estimate]
    maj_at_k: list[Estimate]


_Table = tuple[FloatArray, FloatArray, FloatArray, int]  # by problem: six numbers, pass@k, maj@k; trajectories


def set_of(problem: Problem) -> str:
    """The name of the set that a problem is of: its id is ``SET/ID``."""
    return problem.id.rpartition("/")[0] or problem.source


def by_set(scored: Sequence[Scored], answers: int, most_answers: int, budget: int) -> dict[str, SetResult]:
    """The results of every set, in order of their names, then their `AVERAGE`; nothing where there is only one set."""
    sets: dict[str, list[Scored]] = defaultdict(list)
    for s in scored:
        sets[set_of(s.trajectory.problem)].append(s)
    if len(sets) < 2:
        return {}
    tables = {name: _table(sets[name], answers, most_answers, budget) for name in sorted(sets)}
    return {name: _result([table]) for name, table in tables.items()} | {AVERAGE: _result(list(tables.values()))}


def _table(scored: Sequence[Scored], answers: int, most_answers: int, budget: int) -> _Table:
    index, trajectories = ProblemIndex(scored), [s.trajectory for s in scored]
    right = np.array([outcomes_by_answer(t, most_answers) for t in trajectories])
    tokens = np.array([tokens_by_answer(t, answers)[-1] for t in trajectories])
    regret, frozen = regrets_of(scored, [budget]), regrets_of(by_frozen(scored), [budget])
    numbers = np.column_stack([right[:, answers - 1], right[:, -1], right[:, 0], tokens, regret, frozen])
    return index.problem_means(numbers), *voting_curves(ballots(scored, answers)), len(scored)


def _result(tables: Sequence[_Table]) -> SetResult:
    """Of one set, or of the mean over several; each set's problems are resampled among themselves."""
    samples = min(passed.shape[1] for _, passed, _, _ in tables)
    means = [np.hstack([six, passed[:, :samples], voted[:, :samples]]) for six, passed, voted, _ in tables]
    value = np.mean([mean.mean(0) for mean in means], axis=0)
    resampled = np.mean([resampled_means(mean, seed=place) for place, mean in enumerate(means)], axis=0)
    fewest, n = min(map(len, means)), sum(table[-1] for table in tables)
    columns = zip(value.tolist(), resampled.T, strict=True)
    accuracy, prolonged, first, tokens, regret, frozen, *votes = [of_resamples(v, r, fewest, n) for v, r in columns]
    votes_at_k = votes[:samples], votes[samples:]
    return SetResult(sum(map(len, means)), samples, accuracy, prolonged, first, tokens, regret, frozen, *votes_at_k)
