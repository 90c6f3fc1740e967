"""Self-training (STaR, RISE, MRT-STaR): collect trajectories with the policy, weigh them, fit them, again."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

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


@dataclass
class Done:
    """What an iterated run has behind it. It is saved after every iteration, with the weights, and a resumed run goes
    on from there."""

    iterations: int = 0
    updates: int = 0
    problems: int = 0
    tokens: TokenLedger = field(default_factory=TokenLedger)

    def save(self, checkpoints: Path, model: torch.nn.Module) -> None:
        """Into a directory of the iteration. The file `done.json` comes last: without it there is no checkpoint."""
        folder = checkpoints / f"iteration_{self.iterations:03d}"
        folder.mkdir(exist_ok=True)
        save_file(trainable_state(model), folder / "weights.safetensors")
        (folder / "done.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, checkpoints: Path, model: torch.nn.Module) -> Done:
        """The latest one, its weights put into the model; a fresh one if there is none."""
        saved = sorted(checkpoints.glob("iteration_*/done.json"))
        if not saved:
            return cls()
        model.load_state_dict(load_file(saved[-1].with_name("weights.safetensors")), strict=False)
        record = json.loads(saved[-1].read_text(encoding="utf-8"))
        return cls(**record | {"tokens": TokenLedger(**record["tokens"])})


def self_train(parts: Assembly, problems: Iterator[Problem], run: RunDir, resume: bool) -> TokenLedger:
    """All iterations of the config's algorithm on the endless `problems`. Returns the tokens spent. Raises UserError if
    an iteration keeps no trajectory."""
    config, collector = parts.config, parts.training_collector()
    algorithm = config.algorithm
    assert isinstance(algorithm, SelfTraining)
    base = trainable_state(parts.model)
    done = Done.load(run.checkpoints, parts.model) if resume else Done()
    run.rewind(done.updates)
    collector.ledger = done.tokens
    collections.deque(islice(problems, done.problems), maxlen=0)  # those are used up
    for iteration in range(done.iterations + 1, algorithm.iterations + 1):
        scored = collect_share(parts, collector, problems, done)
        run.save_trajectories(done.updates + 1, scored[: config.training.saved_rollouts])
        rows = weighed(scored, algorithm)
        run.log(done.updates + 1, rollout_metrics(scored) | {"iteration": iteration, "kept": len(rows) / len(scored)})
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
                first_step=done.updates,
            )
            trainer.fit()
        done.iterations, done.updates = iteration, done.updates + trainer.state.global_step
        done.save(run.checkpoints, parts.model)
    return collector.ledger


def collect_share(parts: Assembly, collector: Collector, problems: Iterator[Problem], done: Done) -> list[Scored]:
    """The trajectories of the next iteration: until its share of the run's sampled tokens is used up; without such a
    budget, its share of the trajectories of as many steps of reinforcement learning."""
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
    with progress(total, f"collect {parts.config.algo}, iteration {iteration}") as bar:
        while True:
            spent = collector.ledger.sampled - before
            # What a problem costs is known once some were solved; then the last batch ends at the budget.
            cost = 1.0 if training.sampled_tokens is None else spent / asked if asked else total / 8
            used = asked if training.sampled_tokens is None else spent
            batch = min(round((total - used) / cost), training.problems_per_step)
            if batch < 1:
                break
            rows = [problem for problem in islice(problems, batch) for _ in range(training.group_size)]
            seeds = trajectory_seeds(parts.config.seed, (iteration << 24) + asked, len(rows))
            scored += collector.collect(rows, seeds, sampling)
            asked += batch
            bar.update(batch if training.sampled_tokens is None else collector.ledger.sampled - before - spent)
    collector.engine.release()
    done.problems += asked
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
