"""Self-training (STaR, RISE, MRT-STaR): collect trajectories with the policy, weigh them, fit them, again.

collected/iteration_001/batch_000000/   what was collected, batch by batch: trajectories, and tokens spent so far
"""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count, islice
from pathlib import Path

from pydantic import TypeAdapter

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.errors import Collapsed, RunError
from backtrack_mrt.evaluation.metrics.logged import rollout_metrics
from backtrack_mrt.policy.whole import set_weights, trained_weights
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.collector import groups_by_problem
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.runs import durable, processes
from backtrack_mrt.runs.checkpoints import Checkpoint
from backtrack_mrt.runs.interrupts import common_safe_point
from backtrack_mrt.runs.processes import gathered
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.runs.records import read_trajectories, write_trajectories
from backtrack_mrt.training.supervised import CrossEntropyTrainer, Example, weighted_row
from backtrack_mrt.training.trainer_setup import Setup
from backtrack_mrt.types import Problem, Scored, TokenLedger


@dataclass(frozen=True)
class Done:
    """What lies behind the iteration under way. It is saved with every checkpoint."""

    iterations: int = 0
    updates: int = 0
    problems: int = 0
    tokens: TokenLedger = field(default_factory=TokenLedger)


_DONE = TypeAdapter(Done)


def self_train(
    parts: Assembly, setup: Setup, problems: Iterator[Problem], checkpoint: Checkpoint | None
) -> TokenLedger:
    """All iterations of the config's algorithm on the endless `problems`. Returns the tokens spent. A resumed run goes
    on inside an iteration, with the next batch to collect or the next update. Raises Collapsed if an iteration keeps no
    trajectory."""
    config, algorithm, run = parts.config, parts.config.algorithm, setup.run
    assert isinstance(algorithm, SelfTraining)
    base = {name: weight.clone() for name, weight in trained_weights(parts.model)}
    done = _DONE.validate_python(checkpoint.record["done"]) if checkpoint else Done()
    collections.deque(islice(problems, done.problems), maxlen=0)  # those are used up
    for iteration in range(done.iterations + 1, algorithm.iterations + 1):
        share = collect_share(parts, problems, done, run.collected, complete=checkpoint is not None)
        if not share.problems:
            processes.tell(f"iteration {iteration} is left out: those before have used up its tokens, too")
            done = replace(done, iterations=iteration)
            continue
        scored = weighed(share.scored, algorithm)
        rows = rows_to_fit(scored)
        if checkpoint is None:
            run.save_trajectories(done.updates + 1, scored[: config.training.saved_rollouts])
            spent = {f"tokens/step_{kind}": n - asdict(done.tokens)[kind] for kind, n in asdict(share.tokens).items()}
            found = {"iteration": iteration, "kept": len(rows) / max(len(scored), 1)}
            run.log(done.updates + 1, rollout_metrics(scored) | spent | found)
        if not rows:
            kept = f"iteration {iteration} of {config.algo_label} kept none of its {len(scored)} trajectories"
            reason = f"{kept}: there is nothing to fit"
            raise Collapsed(reason, "Warm-start the model, or take easier or more problems.")
        if algorithm.from_base:
            set_weights(parts.model, base)
        trainer = CrossEntropyTrainer(
            setup,
            rows=rows,
            epochs=config.training.epochs,
            title=f"fit {config.algo_label}, iteration {iteration}",
            first_step=done.updates,
            record={"done": asdict(done)},
        )
        trainer.fit(checkpoint)
        checkpoint = None
        done = Done(iteration, done.updates + trainer.step, done.problems + share.problems, share.tokens)
    return done.tokens


@dataclass
class CollectedShare:
    """What an iteration collected so far: trajectories and the number of their problems; `tokens` are the run's."""

    tokens: TokenLedger
    scored: list[Scored] = field(default_factory=list)
    problems: int = 0


def collect_share(
    parts: Assembly, problems: Iterator[Problem], done: Done, folder: Path, complete: bool
) -> CollectedShare:
    """The next iteration's share: until its part of the run's budget of tokens is used up; without such a budget, as
    many trajectories as that part of the steps of reinforcement learning has. Nothing, where the iterations before left
    no room for a problem.

    Every batch is kept in `folder`, and those that are there already are read. complete: all of them must be, since the
    weights that collected them are gone. Raises RunError if they are not.
    """
    config, training, algorithm = parts.config, parts.config.training, parts.config.algorithm
    assert isinstance(algorithm, SelfTraining)
    iteration, budget, before = done.iterations + 1, training.token_budget, training.spent(done.tokens)
    if budget is None:
        total = math.ceil(training.steps / algorithm.iterations) * training.problems_per_step
    else:
        total = max(round(iteration / algorithm.iterations * budget) - before, 1)
    unit = "problems" if budget is None else "tokens"
    protocol = config.protocol_at((iteration - 1) / max(algorithm.iterations - 1, 1))
    collector, share = parts.training_collector().under(protocol), CollectedShare(done.tokens)
    if budget is not None and done.problems and round(total * done.problems / before) < 1:
        return share
    with (
        collector.synced() as synced,
        progress(total, f"collect {config.algo_label}, iteration {iteration}", unit=unit) as bar,
    ):
        for number in count():
            spent = training.spent(share.tokens) - before
            # What a problem costs is known once some were solved; then the last batch ends at the budget.
            cost = 1.0 if budget is None else spent / share.problems if share.problems else total / 8
            used = share.problems if budget is None else spent
            batch = min(round((total - used) / cost), training.problems_per_step)
            if batch < 1:
                break
            rows = [problem for problem in islice(problems, batch) for _ in range(training.group_size)]
            path = folder / f"iteration_{iteration:03d}" / f"batch_{number:06d}"
            if (damage := durable.damage(path)) is None:
                found, share.tokens = _kept_batch(path)
            elif complete:
                reason = f"{path}: {damage}, and its iteration was fitted already"
                raise RunError(reason, "Start anew with --overwrite.")
            else:
                common_safe_point()
                seeds = trajectory_seeds(config.seed, (iteration << 24) + share.problems, len(rows))
                mine = processes.share(batch, training.group_size)
                collected = synced.collect(rows[mine], seeds[mine], training.temperature)
                found = gathered(collected.scored)
                share.tokens += sum(gathered([collected.ledger]), TokenLedger())
                _keep_batch(path, found, share.tokens)
            share.scored += found
            share.problems += batch
            newly = training.spent(share.tokens) - before - spent
            bar.update(batch if budget is None else newly, rollout_metrics(found))
    return share


@processes.main_only
def _keep_batch(path: Path, scored: Sequence[Scored], tokens: TokenLedger) -> None:
    """A batch's trajectories, with the tokens that the run has spent up to its end."""

    def write(folder: Path) -> None:
        write_trajectories(folder / "trajectories.jsonl", scored)
        (folder / "tokens.json").write_text(json.dumps(asdict(tokens)), encoding="utf-8")

    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_directory(path, write)


def _kept_batch(path: Path) -> tuple[list[Scored], TokenLedger]:
    """What `_keep_batch` has written."""
    tokens = json.loads((path / "tokens.json").read_text(encoding="utf-8"))
    return read_trajectories(path / "trajectories.jsonl"), TokenLedger(**tokens)


def weighed(scored: Sequence[Scored], algorithm: SelfTraining) -> list[Scored]:
    """The trajectories with the weights of their turns, problem by problem."""
    groups = groups_by_problem(scored)
    members = [member for group in groups for member in group.members]
    return [replace(m, weights=row) for m, row in zip(members, algorithm.weigh_batch(groups), strict=True)]


def rows_to_fit(scored: Sequence[Scored]) -> list[Example]:
    """The trajectories that have weight, as rows to fit; weights divided by the mean of the rows' largest ones."""
    chosen = [(s, s.weights) for s in scored if s.weights is not None and s.weights.any()]
    heaviest = [weights.max() for _, weights in chosen]
    mean = sum(heaviest) / max(len(heaviest), 1)
    return [weighted_row(replace(s, weights=weights / mean)) for s, weights in chosen]
