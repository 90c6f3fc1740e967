"""All held-out numbers of one policy, read off its trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backtrack_mrt.evaluation.metrics.budgets import accuracy_at_budgets
from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex, ratio_estimates
from backtrack_mrt.evaluation.metrics.phases import PhaseResult, by_phase
from backtrack_mrt.evaluation.metrics.problem_sets import SetResult, by_set
from backtrack_mrt.evaluation.metrics.protocol_metrics import PROGRESS_EDGES, Move, progress_of_moves, protocol_metrics
from backtrack_mrt.evaluation.metrics.turns import (
    FirstWrongStep,
    answers,
    outcomes_by_answer,
    returns,
    tokens_at_turns,
    tokens_by_answer,
)
from backtrack_mrt.evaluation.metrics.values import (
    ForcedTokens,
    by_frozen,
    cumulative_regret,
    held,
    regrets_of,
    values_at_tokens,
    values_at_turns,
)
from backtrack_mrt.evaluation.metrics.voting import ballots, votes_by_answer, voting_curves
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.types import FloatArray, Scored, StopReason

BUDGETS = (0.25, 0.5, 1.0, 2.0)  # of the trained token budget
GRID = 33  # budgets of a curve, 0 among them


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where trajectories are cut: `answers`, `turns` and `budget` (sampled tokens) as trained, `most_answers` and
    `most_tokens` as sampled in evaluation."""

    answers: int
    most_answers: int
    turns: int
    budget: int
    most_tokens: int

    @classmethod
    def of(cls, trained: EpisodeProtocol, prolonged: EpisodeProtocol) -> Cuts:
        """Those of two protocols."""
        return cls(
            trained.max_answers, prolonged.max_answers, trained.max_turns, trained.token_budget, prolonged.token_budget
        )

    @classmethod
    def found(cls, scored: Sequence[Scored]) -> Cuts:
        """Those that the trajectories reach: nothing is cut."""
        trajectories = [s.trajectory for s in scored]
        most = max(1, max(len(answers(t)) for t in trajectories))
        tokens = max(1, max(t.sampled_tokens for t in trajectories))
        return cls(most, most, max(len(t.turns) for t in trajectories), tokens, tokens)


@dataclass(frozen=True)
class BudgetCurve:
    """Against budgets of sampled tokens per trajectory: accuracy if every trajectory is cut there (the last answer
    given counts), tokens that are sampled then, and the meta-prover's value (n = 0 without values)."""

    budgets: list[float]
    accuracy: list[Estimate]
    tokens: list[Estimate]
    value: list[Estimate]


@dataclass(frozen=True)
class Point:
    """Accuracy, and sampled tokens per trajectory."""

    accuracy: Estimate
    tokens: Estimate


@dataclass(frozen=True)
class LinearisedPoint(Point):
    """After k answers of one long trace: `accuracy` is that of the last answer, `majority` that of a vote over the
    trace's answers so far (maj@k of the linearised budget)."""

    majority: Estimate


@dataclass(frozen=True)
class ForcedPoint(Point):
    """Under budget forcing also V at the end, and the normalised regret by budgets of sampled tokens (n = 0 without a
    meta-prover)."""

    value: Estimate
    regret: dict[str, Estimate]


@dataclass(frozen=True)
class Extras:
    """What further rollouts found; empty where they were not asked for."""

    forced_rounds: dict[str, ForcedPoint] = field(default_factory=dict)  # budget forcing, by the number of extra checks
    linearised: list[LinearisedPoint] = field(default_factory=list)  # sliding window, after each answer
    majority_at_turn: list[Point] = field(default_factory=list)  # [maj@p]_j: cut after j turns, p forced answers
    regret_envelope: list[Estimate] = field(default_factory=list)  # over the first 1, 2, … turns; with p ≥ 8


@dataclass(frozen=True)
class Summary:
    """Held-out results of one policy. The trained limit is the protocol's number of answers in training; prolonged
    numbers are of rollouts under `EpisodeProtocol.prolonged`."""

    accuracy: Estimate  # at the trained limit
    accuracy_prolonged: Estimate
    acc_at_turn: list[Estimate]  # after the k-th answer (0: the first attempt), up to the prolonged limit
    tokens: Estimate  # sampled per trajectory, at the trained limit
    tokens_at_answer: list[Estimate]  # like acc_at_turn
    gain: Estimate  # first attempt → final answer at the trained limit: wrong_to_right − right_to_wrong
    wrong_to_right: Estimate  # share of the trajectories
    right_to_wrong: Estimate
    pass_at_k: list[Estimate]  # k = 1 … samples, at the trained limit; k samples cost k × tokens
    maj_at_k: list[Estimate]
    first_maj_at_k: list[Estimate]  # votes over first attempts alone: k of them cost k × tokens_at_answer[0]
    normalised_regret: Estimate  # at `budget` sampled tokens; n = 0 without a meta-prover
    budget: int
    regret: dict[str, Estimate]  # at other budgets, by the number of tokens
    regret_official: dict[str, Estimate]  # convention "mrt-official"
    normalised_regret_frozen: Estimate  # at `budget`, by the values of the frozen base; n = 0 where it was not asked
    regret_frozen: dict[str, Estimate]
    cumulative_regret: Estimate  # Σ (1 − V_j) over the turns of the trained limit
    value_at_turn: list[Estimate]  # V_0 … at the trained limit, the last value held
    tokens_at_turn: list[Estimate]  # sampled tokens there
    curve: BudgetCurve
    protocol: dict[str, Estimate]  # the protocol's own metrics, prolonged
    moves: dict[str, Move]  # progress of its moves, by their names
    progress_edges: list[float]  # of their histograms
    right_step: Estimate  # of the turns that go back to a step where the right one is known, those that go back to it
    clean_turns: Estimate  # share of turns without a violation
    violations: dict[str, Estimate]  # share of the trajectories, prolonged
    stops: dict[str, Estimate]
    sets: dict[str, SetResult]  # by problem set, and their average; empty where there is only one
    phases: dict[str, PhaseResult] = field(default_factory=dict)  # the turns of each phase, prolonged
    extras: Extras = Extras()


def summarise(
    scored: Sequence[Scored],
    limits: Cuts,
    first_wrong_step: FirstWrongStep = lambda problem, steps: None,
    protocol: EpisodeProtocol | None = None,
    budgets: Sequence[float] = BUDGETS,
    forced_tokens: ForcedTokens = lambda trajectory: 0,
    extras: Extras | None = None,
) -> Summary:
    """All numbers about at least one graded trajectory, with 95 % bootstrap intervals over problems; with `protocol`
    also its own. `budgets` are multiples of the trained one; `forced_tokens` of a trajectory's forced answers count in
    "mrt-official"."""
    index, trajectories = ProblemIndex(scored), [s.trajectory for s in scored]
    trained = limits.answers - 1
    right_NK = np.array([outcomes_by_answer(t, limits.most_answers) for t in trajectories])
    tokens_NK = np.array([tokens_by_answer(t, limits.most_answers) for t in trajectories])
    first, final = right_NK[:, 0], right_NK[:, trained]
    accuracy, tokens = index.means(right_NK), index.means(tokens_NK)
    at = [multiple * limits.budget for multiple in budgets]
    kinds = [returns(t, first_wrong_step) for t in trajectories]
    clean = [[turn.violation is None for turn in t.turns] for t in trajectories]
    spent = [tokens_at_turns(t) for t in trajectories]
    passed, voted = voting_curves(ballots(scored, limits.answers))
    _, first_voted = voting_curves(ballots(scored, 1))

    def by_budget(regrets_NC: FloatArray) -> dict[str, Estimate]:
        return dict(zip((f"{budget:g}" for budget in at), index.means(regrets_NC), strict=True))

    regret_NC = regrets_of(scored, [limits.budget, *at])
    frozen_NC = regrets_of(by_frozen(scored), [limits.budget, *at])
    official_NC = regrets_of(scored, at, "mrt-official", forced_tokens)
    cumulative = [np.nan if s.values is None else cumulative_regret(s.values, limits.turns) for s in scored]
    return Summary(
        accuracy=accuracy[trained],
        accuracy_prolonged=accuracy[-1],
        acc_at_turn=accuracy,
        tokens=tokens[trained],
        tokens_at_answer=tokens,
        gain=index.mean(final - first),
        wrong_to_right=index.mean(final * (1 - first)),
        right_to_wrong=index.mean(first * (1 - final)),
        pass_at_k=ratio_estimates(passed, np.ones_like(passed)),
        maj_at_k=ratio_estimates(voted, np.ones_like(voted)),
        first_maj_at_k=ratio_estimates(first_voted, np.ones_like(first_voted)),
        normalised_regret=index.mean(regret_NC[:, 0]),
        budget=limits.budget,
        regret=by_budget(regret_NC[:, 1:]),
        regret_official=by_budget(official_NC),
        normalised_regret_frozen=index.mean(frozen_NC[:, 0]),
        regret_frozen=by_budget(frozen_NC[:, 1:]),
        cumulative_regret=index.mean(cumulative),
        value_at_turn=index.means(values_at_turns(scored, limits.turns)),
        tokens_at_turn=index.means(np.array([held(row, limits.turns + 1) for row in spent])),
        curve=curve_of(scored, index, limits.most_tokens),
        protocol={} if protocol is None else protocol_metrics(protocol, trajectories, index),
        moves={} if protocol is None else progress_of_moves(protocol, scored, index),
        progress_edges=PROGRESS_EDGES.tolist(),
        right_step=index.ratio([row.count("exact") for row in kinds], [len(row) for row in kinds]),
        clean_turns=index.ratio([sum(row) for row in clean], [len(row) for row in clean]),
        violations=_shares(index, [{turn.violation for turn in t.turns} - {None} for t in trajectories]),
        stops=_shares(index, [{str(t.stop)} if t.stop else set() for t in trajectories], [str(r) for r in StopReason]),
        sets=by_set(scored, limits.answers, limits.most_answers, limits.budget),
        phases=by_phase(scored, index),
        extras=extras or Extras(),
    )


def budget_grid(most_tokens: int) -> FloatArray:
    """The budgets of a curve, from 0 on."""
    return np.linspace(0, most_tokens, GRID)


def curve_of(scored: Sequence[Scored], index: ProblemIndex, most_tokens: int) -> BudgetCurve:
    """Accuracy, tokens and value against the token budget."""
    grid = budget_grid(most_tokens)
    spent_NC = np.minimum(np.array([[s.trajectory.sampled_tokens] for s in scored]), grid)
    return BudgetCurve(
        grid.tolist(),
        index.means(accuracy_at_budgets(scored, grid)),
        index.means(spent_NC),
        index.means(values_at_tokens(scored, grid)),
    )


def forced_point(scored: Sequence[Scored], budgets: Sequence[float]) -> ForcedPoint:
    """Whole trajectories: final accuracy, tokens and value, and regret at `budgets` of sampled tokens."""
    index = ProblemIndex(scored)
    accuracy, tokens, value = index.means(
        [
            [s.trajectory.outcome, s.trajectory.sampled_tokens, np.nan if s.values is None else s.values[-1]]
            for s in scored
        ]
    )
    regrets = index.means(regrets_of(scored, budgets))
    return ForcedPoint(accuracy, tokens, value, {f"{b:g}": r for b, r in zip(budgets, regrets, strict=True)})


def points_by_answer(scored: Sequence[Scored], most: int) -> list[Point]:
    """Accuracy and tokens after the k-th answer, k = 1 … `most`."""
    index, trajectories = ProblemIndex(scored), [s.trajectory for s in scored]
    right = index.means([outcomes_by_answer(t, most) for t in trajectories])
    tokens = index.means([tokens_by_answer(t, most) for t in trajectories])
    return [Point(*both) for both in zip(right, tokens, strict=True)]


def linearised_points(scored: Sequence[Scored], most: int) -> list[LinearisedPoint]:
    """The same with votes over the answers of each trace."""
    index = ProblemIndex(scored)
    votes = index.means([votes_by_answer(s.trajectory, most) for s in scored])
    points = points_by_answer(scored, most)
    return [LinearisedPoint(p.accuracy, p.tokens, vote) for p, vote in zip(points, votes, strict=True)]


def _shares(index: ProblemIndex, names: Sequence[set[str | None]], known: Sequence[str] = ()) -> dict[str, Estimate]:
    """By name, the share of the trajectories that have it."""
    columns = [*known, *sorted({str(name) for row in names for name in row} - set(known))]
    if not columns:
        return {}
    table = np.array([[float(column in row) for column in columns] for row in names])
    return dict(zip(columns, index.means(table), strict=True))
