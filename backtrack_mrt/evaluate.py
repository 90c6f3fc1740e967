"""Evaluation on held-out problems: one prolonged rollout per sample, from which every limit is read off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backtrack_mrt.collection import Collector
from backtrack_mrt.metrics import (
    Estimate,
    FirstWrongStep,
    backtracks,
    bootstrap,
    normalised_regret,
    outcomes_by_answer,
    per_problem,
    tokens_at_turns,
    tokens_by_answer,
)
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollout import trajectory_seeds
from backtrack_mrt.types import Phase, Problem, Sampling, Scored

EVALUATION_STEP = 2**31  # the `step` of evaluation seeds: no training step reaches it


@dataclass(frozen=True)
class Summary:
    """Held-out results of one policy. The trained limit is the protocol's number of revisions in training; prolonged
    numbers are at `evaluation.extra_revisions` times that."""

    accuracy: Estimate  # at the trained limit
    accuracy_prolonged: Estimate
    acc_at_turn: list[Estimate]  # after the k-th answer (0: the first attempt), up to the prolonged limit
    tokens: Estimate  # sampled per trajectory, at the trained limit
    normalised_regret: Estimate  # at `budget` sampled tokens; NaN without a meta-prover
    budget: int
    backtracks: Estimate  # backtrack turns per trajectory, prolonged
    backtrack_right_share: Estimate  # of the backtracks whose right step is known, those that returned to it
    clean_turns: Estimate  # share of turns without a violation


def evaluate(
    problems: Sequence[Problem],
    collector: Collector,
    sampling: Sampling,
    samples: int,
    seed: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Scored]:
    """`samples` scored trajectories per problem; the same seeds for every policy, so that comparisons are paired."""
    rows = [problem for problem in problems for _ in range(samples)]
    seeds = trajectory_seeds(seed, EVALUATION_STEP, len(rows))
    collector.engine.sync(-1)
    scored = collector.collect(rows, seeds, sampling, on_rows)
    collector.engine.release()
    return scored


def summarise(
    scored: Sequence[Scored],
    trained: EpisodeProtocol,
    prolonged: EpisodeProtocol,
    first_wrong_step: FirstWrongStep,
) -> Summary:
    """All numbers of the table, with 95 % bootstrap intervals over problems."""
    trajectories = [s.trajectory for s in scored]
    limit, most = trained.max_answers, prolonged.max_answers
    outcomes_NK = [outcomes_by_answer(t, most) for t in trajectories]
    budget = trained.token_budget
    regrets = [
        [] if s.values is None else [normalised_regret(tokens_at_turns(s.trajectory), s.values, budget)] for s in scored
    ]
    kinds = [backtracks(t, first_wrong_step) for t in trajectories]

    def estimate(numbers: Sequence[Sequence[float]]) -> Estimate:
        return bootstrap(per_problem(scored, numbers))

    acc_at_turn = [estimate([[outcomes_K[k]] for outcomes_K in outcomes_NK]) for k in range(most)]
    return Summary(
        accuracy=acc_at_turn[limit - 1],
        accuracy_prolonged=acc_at_turn[-1],
        acc_at_turn=acc_at_turn,
        tokens=estimate([[tokens_by_answer(t, limit)[-1]] for t in trajectories]),
        normalised_regret=estimate(regrets),
        budget=budget,
        backtracks=estimate([[sum(turn.spec.phase == Phase.BACKTRACK for turn in t.turns)] for t in trajectories]),
        backtrack_right_share=estimate([[float(kind == "exact") for kind in row] for row in kinds]),
        clean_turns=estimate([[float(turn.violation is None) for turn in t.turns] for t in trajectories]),
    )
