"""Numbers about trajectories, as pure functions of arrays and frozen data (METHOD: evaluation).

Shapes: N trajectories, P problems, S samples of a problem, E turns, K answers, C budgets, R resamples. Intervals are
95 % bootstrap intervals over problems: the samples of one problem are not independent.
"""

from backtrack_mrt.metrics.budgets import (
    accuracy_at_budgets,
    majority_at_tokens,
    token_efficiency,
    tokens_to_reach,
)
from backtrack_mrt.metrics.estimates import Estimate, ProblemIndex, bootstrap, per_problem, ratio_estimates
from backtrack_mrt.metrics.logged import rollout_metrics
from backtrack_mrt.metrics.summary import Curve, Extras, Limits, Point, Summary, budget_grid, summarise
from backtrack_mrt.metrics.turns import (
    FirstWrongStep,
    answers,
    backtracks,
    outcomes_by_answer,
    tokens_at_turns,
    tokens_by_answer,
)
from backtrack_mrt.metrics.values import normalised_regret, regrets
from backtrack_mrt.metrics.voting import Ballot, ballots, majority, pass_at_k

__all__ = [
    "Ballot",
    "Curve",
    "Estimate",
    "Extras",
    "FirstWrongStep",
    "Limits",
    "Point",
    "ProblemIndex",
    "Summary",
    "accuracy_at_budgets",
    "answers",
    "backtracks",
    "ballots",
    "bootstrap",
    "budget_grid",
    "majority",
    "majority_at_tokens",
    "normalised_regret",
    "outcomes_by_answer",
    "pass_at_k",
    "per_problem",
    "ratio_estimates",
    "regrets",
    "rollout_metrics",
    "summarise",
    "token_efficiency",
    "tokens_at_turns",
    "tokens_by_answer",
    "tokens_to_reach",
]
