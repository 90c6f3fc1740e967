"""Self-training (STaR, RISE, MRT-STaR): collect trajectories with the policy, weigh them, fit them, again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.assembly import Assembly
from backtrack_mrt.collection import Collector, groups_by_problem
from backtrack_mrt.errors import UserError
from backtrack_mrt.metrics import rollout_metrics
from backtrack_mrt.progress import progress
from backtrack_mrt.rollout import trajectory_seeds
from backtrack_mrt.runlog import RunDir, TokenLedger
from backtrack_mrt.trainers.cross_entropy import CrossEntropyTrainer, Row, weighted_row
from backtrack_mrt.types import Problem, Sampling, Scored


def self_train(parts: Assembly, problems: Iterator[Problem], run: RunDir, resume: bool) -> TokenLedger:
    """All iterations of the config's algorithm on the endless `problems`. Returns the tokens spent by this process.

    Raises UserError if an iteration keeps no trajectory, and for `resume`, which starts over: iterations are not
    checkpointed yet.
    """
    config, collector = parts.config, parts.training_collector()
    algorithm = config.algorithm
    assert isinstance(algorithm, SelfTraining)
    if resume:
        raise UserError("--resume", config.algo, "self-training keeps no checkpoints", "Start again with --overwrite.")
    base, step = trainable_state(parts.model), 0
    for iteration in range(1, algorithm.iterations + 1):
        scored = collect_share(parts, collector, problems, iteration)
        run.save_trajectories(step, scored[: config.training.saved_rollouts])
        rows = weighed(scored, algorithm)
        run.log(step, rollout_metrics(scored) | {"iteration": iteration, "kept": len(rows) / len(scored)})
        if not rows:
            reason = f"iteration {iteration} kept none of its {len(scored)} trajectories: there is nothing to fit"
            raise UserError("algo", config.algo, reason, "Warm-start the model, or take easier or more problems.")
        if algorithm.from_base:
            parts.model.load_state_dict(base, strict=False)
        updates = algorithm.epochs * math.ceil(len(rows) / config.training.problems_per_step)
        with progress(updates, f"fit {config.algo}, iteration {iteration}") as bar:
            trainer = CrossEntropyTrainer(
                model=parts.model,
                tokenizer=parts.tokenizer,
                rows=rows,
                config=config,
                run=run,
                on_step=bar.update,
                epochs=algorithm.epochs,
                first_step=step,
            )
            trainer.fit()
        step += trainer.state.global_step
    return collector.ledger


def collect_share(parts: Assembly, collector: Collector, problems: Iterator[Problem], iteration: int) -> list[Scored]:
    """The trajectories of one iteration: until its share of the run's sampled tokens is used up; without such a budget,
    its share of the trajectories of as many steps of reinforcement learning."""
    training, algorithm = parts.config.training, parts.config.algorithm
    assert isinstance(algorithm, SelfTraining)
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
    with progress(total, f"collect {parts.config.algo}, iteration {iteration}") as bar:
        while True:
            spent = collector.ledger.sampled - before
            # What a problem costs is known once some were solved; then the last batch ends at the budget.
            cost = 1.0 if training.sampled_tokens is None else spent / asked if asked else total / 8
            done = asked if training.sampled_tokens is None else spent
            batch = min(round((total - done) / cost), training.problems_per_step)
            if batch < 1:
                break
            rows = [problem for problem in islice(problems, batch) for _ in range(training.group_size)]
            seeds = trajectory_seeds(parts.config.seed, (iteration << 24) + asked, len(rows))
            scored += collector.collect(rows, seeds, sampling)
            asked += batch
            bar.update(batch if training.sampled_tokens is None else collector.ledger.sampled - before - spent)
    collector.engine.release()
    return scored


def weighed(scored: Sequence[Scored], algorithm: SelfTraining) -> list[Row]:
    """The trajectories that have weight, as rows to fit; weights divided by their mean over the rows' turns."""
    chosen = []
    for group in groups_by_problem(scored):
        for member, weights in zip(group.members, algorithm.turn_weights(group), strict=True):
            if weights.any():
                chosen.append((member.trajectory, weights))
    heaviest = [weights.max() for _, weights in chosen]
    mean = sum(heaviest) / max(len(heaviest), 1)
    return [weighted_row(trajectory, weights / mean) for trajectory, weights in chosen]


def trainable_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the parameters that training changes."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
