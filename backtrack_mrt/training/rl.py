"""Reinforcement learning with one weight per turn.

`PolicyTrainer` changes one thing in `GRPOTrainer`: rollouts come in through `rollout_func`, the parent does what it
always does, and the per-turn weights of the algorithm then replace its scalar advantages, spread over the tokens that
each turn sampled, shape (B, T). Beside that it packs the rows of a micro-batch (see `packing`), can end at a budget of
tokens, and can have the next update's rollouts drawn meanwhile (see `ahead`). The loss, clipping, accumulation,
checkpoints and multi-process set-up are TRL's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from trl.trainer.grpo_trainer import GRPOTrainer

from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.metrics.logged import rollout_metrics, without_signal
from backtrack_mrt.policy.models import frozen_copy
from backtrack_mrt.rollouts.collector import Collected, Collector, groups_of
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.runs.checkpoints import Checkpoint
from backtrack_mrt.runs.processes import gathered
from backtrack_mrt.training.ahead import RolloutsAhead, StepRollouts
from backtrack_mrt.training.answers import Answer, answer_maker, branched, last_hidden_states, total_value
from backtrack_mrt.training.budgets import KINDS, StageEnds, StopAtBudget, counted_tokens, rate_at, used_up
from backtrack_mrt.training.critic import Critic, explained_variance
from backtrack_mrt.training.grpo_settings import grpo_config, grpo_repeats, outcome_reward, prepare_trl, trl_rows
from backtrack_mrt.training.micro_batches import by_length, by_prompt, regrouped
from backtrack_mrt.training.mismatch import Mismatch
from backtrack_mrt.training.packed_trainer import PackedTrainer
from backtrack_mrt.training.packing import aligned_rows, packed_rows
from backtrack_mrt.training.trainer_setup import Setup
from backtrack_mrt.types import Problem, Scored, TokenLedger


class PolicyTrainer(PackedTrainer, GRPOTrainer):
    """GRPO with one weight per turn.

    problems: what to train on, in the order of training; problem k of update u is row u·problems_per_step + k.
    """

    _buffered_inputs: Any  # the parent's: the micro-batches of the latest rollouts

    def __init__(self, setup: Setup, *, problems: Sequence[Problem], collector: Collector) -> None:
        prepare_trl()
        config, budget = setup.config, setup.config.training.token_budget
        self.problems, self.algorithm, self.collector = problems, config.algorithm, collector
        self.ledgers: list[TokenLedger] = []  # of the rollouts of each step, by all processes
        self._numbers: list[int] = []  # of the update's problems, one for each row of this process
        self._ahead = RolloutsAhead()
        self._everyone: list[Scored] = []  # the latest rollouts, of all processes
        self.critics = {0: Critic()}  # by the update they were fitted after: the latest whole one's, and the next
        firsts = problems[:: (alike := grpo_repeats(config) // config.training.group_size)]  # one for those of its rows
        self._prompts_per_update = config.training.problems_per_step // alike
        self._regrouped: list[dict[str, Any]] | None = None
        super().__init__(
            setup,
            title=f"train {config.algo_label}",
            total=budget or config.training.steps,
            counted=counted_tokens(config.training) if budget else (),
            args=grpo_config(config, setup.run),
            train_dataset=Dataset.from_dict({"prompt": [p.question for p in firsts], "row": range(len(firsts))}),
            reward_funcs=outcome_reward,
            rollout_func=self._rollout,
        )
        if config.training.kl:  # told now: TRL would load a second model, or an adapter that is saved with ours
            self.beta = config.training.kl
            self.ref_model = frozen_copy(setup.model) if config.model.full_finetuning else None
        self._forces = answer_maker(setup, collector, self.packs) if config.answer_weight else None
        self._answers: list[list[Answer]] = []  # that are trained along, of each row of this process
        self._branching: list[list[Answer]] = []  # of the rows of the micro-batch under way; none outside of the loss
        self._answered = torch.zeros(())  # Σ weight·V of these
        self._mismatch = Mismatch(config.training.importance_cap, corrects=not collector.engine.exact)
        self._correcting: dict[str, Any] | None = None  # the micro-batch whose loss is being computed
        if config.training.budget_stages:
            self.add_callback(StageEnds(setup, lambda: self.done))
        if budget is not None:
            self.add_callback(StopAtBudget(config.training, lambda: self.ledgers))

    def fit(self, checkpoint: Checkpoint | None = None) -> None:
        """Train to the end, from a checkpoint on if there is one."""
        rows = self.run.metrics()
        self.ledgers = [TokenLedger(**{kind: int(row[f"tokens/step_{kind}"]) for kind in KINDS}) for row in rows]
        if checkpoint:
            self._ahead.restore(checkpoint.step + 1, checkpoint.record)
        if checkpoint and self.algorithm.needs_critic:
            self.critics = {checkpoint.step: Critic.from_json(checkpoint.record["critic"])}
        if checkpoint and used_up(self.run_config.training, self.ledgers):
            prompts: Any = self.train_dataset
            self.train_dataset = prompts.select(range(checkpoint.step * self._prompts_per_update))
            # It was killed between its last update and its end.
            self.args.max_steps = checkpoint.step * self.num_iterations
        with closing(self._ahead):
            super().fit(checkpoint)

    def recorded(self, step: int) -> Mapping[str, Any]:
        """The critic as it was after that update, and the rollouts that were begun for the next one."""
        critic = {"critic": self.critics[step].as_json()} if self.algorithm.needs_critic else {}
        return critic | self._ahead.recorded(step + 1)

    def between_steps(self) -> float:
        """See `SafeTrainer.between_steps`. An evaluation has the engine for itself."""
        self._ahead.wait()
        return super().between_steps()

    @property
    def done(self) -> float:
        """Share of the training that is over, by its budget of tokens or by its steps."""
        return self._done_before(self.step + 1)

    def _done_before(self, update: int) -> float:  # whose rollouts are the next that are drawn
        training = self.run_config.training
        if training.token_budget is None:
            return (update - 1) / training.steps
        return min(training.spent(self.ledger) / training.token_budget, 1.0)

    @property
    def _first_row(self) -> int:  # of this process, in the batch
        return int(self.accelerator.process_index) * len(self._numbers)

    @property
    def ledger(self) -> TokenLedger:
        """The tokens of the whole run so far, by all processes, also before it was resumed."""
        return sum(self.ledgers, TokenLedger())

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """TRL's over the steps; with a budget of tokens, the same shape over the share that is used up."""
        training = self.run_config.training
        if training.token_budget is None:
            return super().create_scheduler(num_training_steps, optimizer)

        optimizer = optimizer or self.optimizer
        assert optimizer is not None
        self.lr_scheduler = LambdaLR(optimizer, lambda _: rate_at(self.done, training))
        return self.lr_scheduler

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        group, repeated = self.run_config.training.group_size, grpo_repeats(self.run_config)
        self._numbers = [row["row"] * (repeated // group) + k % repeated // group for k, row in enumerate(inputs)]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        completion_ids = output["completion_ids"]
        weights_BT = torch.zeros(completion_ids.shape)
        for row, scored in zip(weights_BT, self._weigh(), strict=True):
            weights = scored.token_weights()
            row[: len(weights)] = torch.from_numpy(weights).float()
        output["advantages"] = weights_BT.to(completion_ids.device)
        output["row"] = torch.arange(len(weights_BT))
        self._tell(rollout_metrics(self._everyone))
        return output

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not self._regrouped:  # fresh rollouts
            self._regrouped = self._buffered_inputs = regrouped(
                self._buffered_inputs, self.args.gradient_accumulation_steps, by_prompt if self.packs else by_length
            )
            inputs = self._buffered_inputs[self._step % len(self._buffered_inputs)]
        self.note(inputs)
        return inputs

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **settings: Any) -> Any:
        """TRL's, less the values of the answers that are trained along. Where the engine is not exact, the weights are
        corrected on the way."""
        inputs = self._correcting = dict(inputs)
        if self._forces is not None:
            self._branching = [self._answers[row] for row in inputs["row"].tolist()]
        loss = super().compute_loss(model, inputs, *args, **settings)
        self._branching = []
        self.backward_in_free_cores()
        return loss if self._forces is None else loss - self._answered

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> Any:
        """Of the completions' tokens (B, `logits_to_keep`), of rows without padding before them, `batch_size` at a
        time. compute_aux_loss: also the loss of a mixture's routers. The answers that are trained along (then all rows
        come at once) are scored on the way."""
        logprobs, entropies, losses = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
        routed = {"output_router_logits": True} if compute_aux_loss else {}
        parts = (torch.split(rows, batch_size or len(input_ids)) for rows in (input_ids, attention_mask))
        for ids, mask in zip(*parts, strict=True):
            lengths = [(int(row[:-logits_to_keep].sum()), int(row[-logits_to_keep:].sum())) for row in mask]
            answered = [branched(*row, answers) for row, answers in zip(lengths, self._branching, strict=False)]
            if self.packs:
                leaving = [row.branches for row in answered]
                packed = packed_rows(ids, mask, logits_to_keep, self.setup.model, leaving)
                inputs, targets, scored = packed.inputs(), packed.targets[None], packed.scored
            else:
                rows = aligned_rows(ids, mask, logits_to_keep)
                inputs, targets, scored = rows.inputs(), rows.targets, rows.scored
            states = last_hidden_states(self.setup.model)
            with self.in_free_cores(), self.accelerator.autocast(), states as hidden:
                found = model(**inputs, **routed, shift_labels=targets, fused_lm_head=True)
            if answered:
                head = self.setup.model.get_output_embeddings()
                self._answered = total_value(hidden[0][0], head, answered, packed.branched)
            for kept, values in ((logprobs, found.log_probs), (entropies, found.entropy)):
                kept.append(values[0][scored] if self.packs else values.gather(1, scored))
            losses.append(found.aux_loss)
        logprobs_BT = torch.cat(logprobs)
        if self._correcting is not None:
            self._mismatch.correct(self._correcting, self._correcting.get("old_per_token_logps", logprobs_BT))
            self._correcting = None
            if self.accelerator.sync_gradients:  # the last micro-batch
                self._tell(self._mismatch.told(self.accelerator))
        return logprobs_BT, torch.cat(entropies), torch.stack(losses).mean() if compute_aux_loss else None

    def _tell(self, numbers: Mapping[str, float]) -> None:
        """To TRL, for the log of the step under way."""
        for name, number in numbers.items():
            self._metrics["train"][name].append(number)

    def _rollout(self, prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """TRL's hook: one trajectory per asked problem (already repeated per group member), as ids and mask."""
        step, training = self.step + 1, self.run_config.training
        taken = self._ahead.take(step) or StepRollouts(self._begin(step)())
        collected = taken.collected
        trajectories = [scored.trajectory for scored in collected.scored]
        given = [trajectory.problem.id for trajectory in trajectories]
        if given != [self.problems[number].id for number in self._numbers]:
            reason = f"its collect gave {len(given)} trajectories for {len(prompts)} rows, or those of other problems"
            name = type(self.algorithm.collection).__name__
            raise UserError("algo", name, reason, "Return one for each row, in order, where the loss is rl.")
        self._everyone = gathered(collected.scored)
        self.ledgers.append(sum(gathered([collected.ledger]), TokenLedger()))
        self._tell({f"tokens/step_{kind}": tokens for kind, tokens in asdict(self.ledgers[-1]).items()})
        self.seconds.update(taken.seconds)
        if training.asynchronous:
            self._tell({f"time/{part}": seconds for part, seconds in taken.seconds_ahead.items()})
            self._tell({"sampling/lag": taken.lag * self.num_iterations})
            if step < training.most_steps and not used_up(training, self.ledgers):
                self._ahead.begin(step + 1, self._begin(step + 1))
        return trl_rows(trajectories, self.setup.tokenizer.eos_token_id)

    def _begin(self, update: int) -> Callable[[], Collected]:
        """The rollouts for that update, by the policy as it is: what is returned draws them."""
        training, first = self.run_config.training, self._first_row
        later = (update - 1 - self.step) * training.problems_per_step
        mine = [self.problems[number + later] for number in self._numbers]
        others = first % training.group_size if self.algorithm.collection.shares else 0
        asked = [*mine[:1] * others, *mine]
        seeds = trajectory_seeds(self.run_config.seed, update, len(asked), first_row=first - others)
        collector = self.collector.under(self.run_config.protocol_at(self._done_before(update)))
        return collector.begin(asked, seeds, training.temperature, others)

    def _weigh(self) -> list[Scored]:
        """This process's rows, weighed. A group may span processes, so the weights are made of everyone's rows; the
        first of these are saved with theirs."""
        groups = groups_of(self._everyone, self.run_config.training.group_size)
        if self.algorithm.needs_critic:
            critic = self.critics[self.step]  # as it was before it is fitted on these groups
            groups = [critic.judged(group) for group in groups]
            self.critics = {self.step: critic, self.step + 1: critic.fitted(groups)}
            self._tell({"critic/explained_variance": explained_variance(groups)})
        rows = [member for group in groups for member in group.members]
        weights = self.algorithm.weigh_batch(groups)
        self._tell({"groups/without_signal": without_signal(groups, weights)})
        weighed = [replace(scored, weights=row) for scored, row in zip(rows, weights, strict=True)]
        saved = self.run_config.training.saved_rollouts
        if saved:
            self.run.save_trajectories(self.step + 1, weighed[:saved])
        mine = slice(self._first_row, self._first_row + len(self._numbers))
        if self._forces is not None:
            drawn = self._forces.drawn(weighed, seed=(self.run_config.seed, self.step))
            self._tell({"answers/trained": sum(map(len, drawn))})
            self._answers = drawn[mine]
        return weighed[mine]
