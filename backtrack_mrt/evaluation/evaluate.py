"""Evaluation on held-out problems: one prolonged rollout per sample, from which every limit is read off. What cannot be
read off (budget forcing, a sliding window, forced answers after every turn) is rolled out when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import isnan
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from backtrack_mrt.config import Config, EvaluationSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.metrics.estimates import Estimate, ProblemIndex
from backtrack_mrt.evaluation.metrics.problem_sets import set_of
from backtrack_mrt.evaluation.metrics.summary import (
    Cuts,
    Extras,
    Point,
    Summary,
    forced_point,
    linearised_points,
    summarise,
)
from backtrack_mrt.evaluation.metrics.turns import FirstWrongStep, tokens_at_turns
from backtrack_mrt.evaluation.metrics.values import envelope_regret, held
from backtrack_mrt.evaluation.metrics.voting import ballots, majority
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.rollouts.collector import Collected, Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.rollout import grade, trajectory_seeds
from backtrack_mrt.runs.durable import replacing
from backtrack_mrt.runs.jsonl import json_text, read_whole
from backtrack_mrt.runs.processes import gathered, main_only, share
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.runs.records import read_trajectories, write_trajectories
from backtrack_mrt.types import FloatArray, Problem, Scored, StopReason, TokenLedger, Trajectory

ENVELOPE_VOTES = 8  # forced answers that the second official regret needs
_COST = TypeAdapter(TokenLedger)
EVALUATION_STEP = 2**31  # the `step` of evaluation seeds: no training step reaches it


def sampled_rows(problems: Sequence[Problem], wanted: EvaluationSection) -> list[Problem]:
    """Each problem as often as it is to be sampled: those of a small set more often."""
    size = Counter(map(set_of, problems))

    def samples(problem: Problem) -> int:
        small = size[set_of(problem)] < wanted.small_set
        return max(wanted.samples, wanted.small_set_samples if small else 1)

    return [problem for problem in problems for _ in range(samples(problem))]


def evaluate(
    rows: Sequence[Problem],
    collector: Collector,
    temperature: float,
    seed: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Collected:
    """A scored trajectory of every row (a problem may have several); the same seeds for every policy, so that
    comparisons are paired. Several processes share the rows; all get all trajectories, and each the cost of its own."""
    seeds = trajectory_seeds(seed, EVALUATION_STEP, len(rows))
    mine = share(len(rows))
    collected = collector.collect(rows[mine], seeds[mine], temperature, on_rows=on_rows)
    return replace(collected, scored=gathered(collected.scored))


def measure(
    config: Config,
    collector: Collector,
    problems: Sequence[Problem],
    first_wrong_step: FirstWrongStep,
    name: str,
    kept: Path | None = None,
) -> tuple[Summary, TokenLedger]:
    """Everything that `config.evaluation` asks for about the collector's policy, and the tokens that were spent on it;
    `name` is shown. Trajectories are written to the directory `kept` as ``evaluation_NAME….jsonl``, beside what they
    cost; those that are there already are read, not sampled."""
    wanted, trained = config.evaluation, config.protocol
    prolonged = trained.prolonged(wanted.extra_revisions)
    ledgers: list[TokenLedger] = []
    rows = sampled_rows(problems, wanted)

    def rolled_out(collector: Collector, suffix: str = "") -> list[Scored]:
        path = kept / f"evaluation_{name}{suffix}.jsonl" if kept else None
        if path is not None and path.exists():
            ledgers.append(_read_cost(path))
            return read_trajectories(path)
        with progress(share(len(rows)).stop, f"evaluate {name}{suffix}") as bar:  # the main one's
            found = evaluate(rows, collector, wanted.temperature, config.seed, bar.update)
        ledgers.append(sum(gathered([found.ledger]), TokenLedger()))
        if path is not None:
            _write_cost(path, ledgers[-1])  # first: a run may end between the two
            write_trajectories(path, found.scored)
        return found.scored

    limits = Cuts.of(trained, prolonged)
    scored = rolled_out(collector.under(prolonged))
    plain = replace(collector, protocol=prolonged, prover=None, frozen=None)
    extras = Extras()
    for rounds in wanted.extra_rounds:
        persistent = prolonged.persistent(rounds)
        assert persistent is not None  # the config's rules
        longer_still = rolled_out(replace(collector, protocol=persistent, frozen=None), f"_rounds_{rounds}")
        point = forced_point(longer_still, [b * trained.token_budget for b in wanted.budgets])
        extras = replace(extras, forced_rounds=extras.forced_rounds | {str(rounds): point})
    if wanted.linearised_revisions:
        longer = trained.prolonged(wanted.linearised_revisions)
        sliding = rolled_out(replace(plain, protocol=longer, window=wanted.window), "_linearised")
        extras = replace(extras, linearised=linearised_points(sliding, longer.max_answers))
    if p := wanted.forced_answers:
        forcing = replace(plain, max_answer_tokens=config.prover.max_answer_tokens)
        votes, ledger = forced_majority(scored, p, limits.turns, forcing, wanted.temperature, config.seed)
        envelope = envelope_regrets(scored, votes, limits.turns)
        by_turn = majority_points(scored, votes, limits.turns)
        extras = replace(extras, majority_at_turn=by_turn, regret_envelope=envelope)
        ledgers.append(ledger)
    forced = forced_tokens(collector.dialogue, scored)
    summary = summarise(scored, limits, first_wrong_step, prolonged, wanted.budgets, forced, extras)
    return summary, sum(ledgers, TokenLedger())


@main_only
def _write_cost(trajectories: Path, spent: TokenLedger) -> None:
    with replacing(trajectories.with_suffix(".json")) as file:
        file.write(json_text(asdict(spent)))


def _read_cost(trajectories: Path) -> TokenLedger:
    """Nothing, for those of another run."""
    path = trajectories.with_suffix(".json")
    if not path.exists():
        return TokenLedger()
    remedy = "Delete it: its tokens are not counted then."
    return read_whole(path, _COST.validate_python, what="what an evaluation cost", field=path.name, remedy=remedy)


def forced_tokens(dialogue: Dialogue, scored: Sequence[Scored]) -> Callable[[Trajectory], int]:
    """Tokens of one forced answer of a trajectory: the question for it, and the gold answer."""
    started = next((s.trajectory for s in scored if s.trajectory.turns), None)
    asked = len(dialogue.forced(started, 1)) - len(started.prefix_ids(1)) if started else 0
    golds = {s.trajectory.problem.answer for s in scored}
    length = {gold: asked + len(dialogue.answer(gold)) for gold in golds}
    return lambda trajectory: length[trajectory.problem.answer]


def forced_majority(
    scored: Sequence[Scored], p: int, turns: int, collector: Collector, temperature: float, seed: int
) -> tuple[list[FloatArray], TokenLedger]:
    """maj@k for k = 1 … `p` of answers forced after j turns, j = 0 … `turns` (or the trajectory's end): of every
    trajectory, shape (J, p). The ledger has the forced answers of all processes, as the prover's."""
    trajectories = [s.trajectory for s in scored]
    last = [min(len(t.turns) - (t.stop is StopReason.VIOLATION), turns) for t in trajectories]
    votes = [np.zeros((end + 1, p)) for end in last]
    step, spent = max(collector.max_rows // p, 1), TokenLedger()
    by_turn = [[i for i, end in enumerate(last) if j <= end] for j in range(turns + 1)]
    asked = sum(share(len(going)).stop for going in by_turn)
    with collector.synced() as synced, progress(p * asked, "forced answers") as bar:  # the main one's
        for j, going in enumerate(by_turn):
            rows, found = going[share(len(going))], list[tuple[int, FloatArray]]()
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                starts = [trajectories[i].branch(j) for i in some for _ in range(p)]
                seeds = [s for i in some for s in trajectory_seeds(seed, EVALUATION_STEP + 1 + j, p, first_row=i * p)]
                forced = synced.force(starts, seeds, temperature)
                spent += TokenLedger(prover=forced.ledger.sampled)
                bar.update(len(starts))
                for place, i in enumerate(some):
                    (ballot,) = ballots(forced.scored[place * p : (place + 1) * p], limit=j + 2)
                    found.append((i, majority(ballot)))
            for i, voted in gathered(found):
                votes[i][j] = voted
    return votes, sum(gathered([spent]), TokenLedger())


def majority_points(scored: Sequence[Scored], votes: Sequence[FloatArray], turns: int) -> list[Point]:
    """[maj@p]_j for j = 0 … `turns`, the last vote held; the tokens are those of the j turns."""
    index = ProblemIndex(scored)
    right = [held(rows[:, -1], turns + 1) for rows in votes]
    tokens = [held(tokens_at_turns(s.trajectory), turns + 1) for s in scored]
    return [Point(*both) for both in zip(index.means(right), index.means(tokens), strict=True)]


def envelope_regrets(scored: Sequence[Scored], votes: Sequence[FloatArray], turns: int) -> list[Estimate]:
    """Over the first 1 … `turns` turns; none with fewer than eight forced answers."""
    if min(rows.shape[1] for rows in votes) < ENVELOPE_VOTES:
        return []
    table = [[envelope_regret(rows, steps) for steps in range(1, turns + 1)] for rows in votes]
    return ProblemIndex(scored).means(table)


def read_graded(path: Path, grader: Grader = MATH) -> list[Scored]:
    """The trajectories of a file, at least one, every answer graded. Grades that the file has are kept. Raises
    UserError."""
    scored = read_trajectories(path)
    if not scored:
        raise UserError("trajectories", str(path), "the file is empty", "Give a file with one trajectory per line.")
    missing = [i for i, s in enumerate(scored) if _ungraded(s.trajectory)]
    with grader.opened().counting() as counting:
        found = grade([scored[i].trajectory for i in missing], counting)
    for i, trajectory in zip(missing, found, strict=True):
        before = scored[i].trajectory
        if not isnan(before.outcome):
            trajectory = replace(trajectory, outcome=before.outcome, verdict=before.verdict)
        scored[i] = replace(scored[i], trajectory=trajectory)
    return scored


def _ungraded(trajectory: Trajectory) -> bool:
    return isnan(trajectory.outcome) or any(t.reward is None for t in trajectory.turns if t.answer is not None)
