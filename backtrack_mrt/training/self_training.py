"""Self-training (STaR, RISE, MRT-STaR): collect trajectories with the policy, weigh them, fit them, again.

collected/iteration_001/batch_000000/   what was collected, batch by batch: trajectories, and tokens spent so far
"""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.evaluation.metrics.logged import rollout_metrics
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.collector import Collector, groups_by_problem
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.runs import durable
from backtrack_mrt.runs.checkpoints import Checkpoints
from backtrack_mrt.runs.directory import RunDir, TokenLedger
from backtrack_mrt.runs.interrupts import safe_point
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.runs.records import read_trajectories, write_trajectories
from backtrack_mrt.training.safety import resumed
from backtrack_mrt.training.settings import BetweenSteps
from backtrack_mrt.training.supervised import CrossEntropyTrainer, Row, weighted_row
from backtrack_mrt.types import Problem, Sampling, Scored


@dataclass
class Done:
    """What lies behind the iteration under way. It is saved with every checkpoint."""

    iterations: int = 0
    updates: int = 0
    problems: int = 0
    tokens: TokenLedger = field(default_factory=TokenLedger)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Done:
        """The inverse of `asdict`."""
        return cls(record["iterations"], record["updates"], record["problems"], TokenLedger(**record["tokens"]))


def self_train(
    parts: Assembly, problems: Iterator[Problem], run: RunDir, resume: bool, between_steps: BetweenSteps
) -> TokenLedger:
    """All iterations of the config's algorithm on the endless `problems`. Returns the tokens spent. A resumed run goes
    on inside an iteration, with the next batch to collect or the next update. Raises UserError if an iteration keeps no
    trajectory."""
    config, collector = parts.config, parts.training_collector()
    algorithm = config.algorithm
    assert isinstance(algorithm, SelfTraining)
    base = trainable_state(parts.model)
    checkpoint = resumed(run, Checkpoints(run.checkpoints, config.training.keep_checkpoints), resume)
    done = Done.of(checkpoint.record["done"]) if checkpoint else Done()
    collector.ledger = copy(done.tokens)
    collections.deque(islice(problems, done.problems), maxlen=0)  # those are used up
    for iteration in range(done.iterations + 1, algorithm.iterations + 1):
        scored, asked = collect_share(parts, collector, problems, done, run.collected, complete=checkpoint is not None)
        scored = weighed(scored, algorithm)
        rows = rows_to_fit(scored)
        if checkpoint is None:
            run.save_trajectories(done.updates + 1, scored[: config.training.saved_rollouts])
            kept = {"iteration": iteration, "kept": len(rows) / max(len(scored), 1)}
            run.log(done.updates + 1, rollout_metrics(scored) | kept)
        if not rows:
            reason = f"iteration {iteration} kept none of its {len(scored)} trajectories: there is nothing to fit"
            raise UserError("algo", config.algo, reason, "Warm-start the model, or take easier or more problems.")
        if algorithm.from_base:
            parts.model.load_state_dict(base, strict=False)
        updates = math.ceil(algorithm.epochs * len(rows) / config.training.problems_per_step)
        with progress(updates, f"fit {config.algo_label}, iteration {iteration}") as bar:
            trainer = CrossEntropyTrainer(
                model=parts.model,
                tokenizer=parts.tokenizer,
                rows=rows,
                config=config,
                run=run,
                on_step=bar.update,
                between_steps=between_steps,
                epochs=algorithm.epochs,
                first_step=done.updates,
                record={"done": asdict(done)},
            )
            trainer.fit(checkpoint)
        checkpoint = None
        tokens = copy(collector.ledger)
        done = Done(iteration, done.updates + trainer.state.global_step, done.problems + asked, tokens)
    return collector.ledger


def collect_share(
    parts: Assembly, collector: Collector, problems: Iterator[Problem], done: Done, folder: Path, complete: bool
) -> tuple[list[Scored], int]:
    """The trajectories of the next iteration and the number of its problems: until its share of the run's sampled
    tokens is used up; without such a budget, its share of the trajectories of as many steps of reinforcement learning.

    Every batch is kept in `folder`, and those that are there already are read. complete: all of them must be, since the
    weights that collected them are gone. Raises RunError if they are not.
    """
    training, algorithm = parts.config.training, parts.config.algorithm
    assert isinstance(algorithm, SelfTraining)
    iteration = done.iterations + 1
    sampling = Sampling(training.temperature, stop_ids=parts.dialogue.chat.stop_ids)
    share = iteration / algorithm.iterations
    before = collector.ledger.sampled
    if training.sampled_tokens is None:
        total = math.ceil(training.steps / algorithm.iterations) * training.problems_per_step
    else:
        total = max(round(share * training.sampled_tokens) - before, 1)
    collector.protocol = parts.config.protocol_at((iteration - 1) / max(algorithm.iterations - 1, 1))
    collector.engine.sync(iteration)
    scored: list[Scored] = []
    asked = 0
    with progress(total, f"collect {parts.config.algo_label}, iteration {iteration}") as bar:
        for number in count():
            spent = collector.ledger.sampled - before
            # What a problem costs is known once some were solved; then the last batch ends at the budget.
            cost = 1.0 if training.sampled_tokens is None else spent / asked if asked else total / 8
            used = asked if training.sampled_tokens is None else spent
            batch = min(round((total - used) / cost), training.problems_per_step)
            if batch < 1:
                break
            rows = [problem for problem in islice(problems, batch) for _ in range(training.group_size)]
            path = folder / f"iteration_{iteration:03d}" / f"batch_{number:06d}"
            if durable.damage(path) is None:
                found = _read_batch(path, collector)
            elif complete:
                reason = f"{path}: {durable.damage(path)}, and its iteration was fitted already"
                raise RunError(reason, "Start anew with --overwrite.")
            else:
                safe_point()
                seeds = trajectory_seeds(parts.config.seed, (iteration << 24) + asked, len(rows))
                found = collector.collect(rows, seeds, sampling)
                _keep_batch(path, found, collector)
            scored += found
            asked += batch
            done_now = batch if training.sampled_tokens is None else collector.ledger.sampled - before - spent
            bar.update(done_now, rollout_metrics(found))
    collector.engine.release()
    return scored, asked


def _keep_batch(path: Path, scored: Sequence[Scored], collector: Collector) -> None:
    """A batch's trajectories, with the tokens that the run has spent up to its end."""

    def write(folder: Path) -> None:
        write_trajectories(folder / "trajectories.jsonl", scored)
        (folder / "tokens.json").write_text(json.dumps(asdict(collector.ledger)), encoding="utf-8")

    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_directory(path, write)


def _read_batch(path: Path, collector: Collector) -> list[Scored]:
    collector.ledger = TokenLedger(**json.loads((path / "tokens.json").read_text(encoding="utf-8")))
    return read_trajectories(path / "trajectories.jsonl")


def weighed(scored: Sequence[Scored], algorithm: SelfTraining) -> list[Scored]:
    """The trajectories with the weights of their turns, problem by problem."""
    return [
        replace(member, weights=weights)
        for group in groups_by_problem(scored)
        for member, weights in zip(group.members, algorithm.weigh(group), strict=True)
    ]


def rows_to_fit(scored: Sequence[Scored]) -> list[Row]:
    """The trajectories that have weight, as rows to fit; weights divided by their mean over the rows' turns."""
    chosen = [(s.trajectory, s.weights) for s in scored if s.weights is not None and s.weights.any()]
    heaviest = [weights.max() for _, weights in chosen]
    mean = sum(heaviest) / max(len(heaviest), 1)
    return [weighted_row(trajectory, weights / mean) for trajectory, weights in chosen]


def trainable_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the parameters that training changes."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
