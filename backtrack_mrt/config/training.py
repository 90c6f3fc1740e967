"""Settings of the updates, and of what is measured before and after them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from backtrack_mrt.config.section import Section
from backtrack_mrt.types import TokenLedger

BUDGET_STEPS = 4  # with a budget of tokens training ends after so many times the configured steps at the latest


class TrainingSection(Section):
    """Updates of the policy."""

    steps: int = Field(32, gt=0, description="batches that the policy is updated on")
    sampled_tokens: int | None = Field(
        None, gt=0, description="train until so many tokens were sampled instead of for `steps` (at most 4 times those)"
    )
    total_tokens: int | None = Field(
        None, gt=0, description="the same in all tokens: sampled, inserted by the environment, the meta-prover's"
    )
    first_budget: float = Field(1.0, gt=0, le=1, description="share of protocol.token_budget at first, growing to all")
    budget_stages: list[float] = Field(
        [], description="shares of protocol.token_budget in stages of equal length, rising to 1, e.g. 0.5 1 (none: one)"
    )
    epochs: int = Field(1, gt=0, description="updates on each batch of rollouts (GRPO's μ), passes over an iteration")
    problems_per_step: int = Field(32, gt=0, description="problems per batch")
    group_size: int = Field(8, gt=0, description="trajectories per problem (G)")
    micro_batch_size: int = Field(64, gt=0, description="trajectories per forward-backward pass")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    lr_schedule: Literal["constant", "cosine", "linear"] = Field("cosine", description="after the warm-up")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="AdamW's β2: how long the size of gradients is remembered")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient clipping")
    temperature: float = Field(1.0, gt=0, description="sampling temperature in training")
    loss: Literal["grpo", "dapo"] = Field("dapo", description="averages over tokens (dapo) or trajectories (grpo)")
    clip: float = Field(0.2, gt=0, description="PPO clip range ε")
    importance_cap: float = Field(
        3.0, ge=1, description="largest importance weight of a token where the engine's logprobs are not the trainer's"
    )
    asynchronous: bool = Field(
        False, description="engine.server samples the next batch during the update on this one, by weights one step old"
    )
    deterministic: bool = Field(
        True, description="on a GPU: sums in a fixed order, so that a run repeats and resumes bit for bit"
    )
    kl: float = Field(0.0, ge=0, description="weight β of the KL to the reference")
    saved_rollouts: int = Field(16, ge=0, description="trajectories of every step that are kept in the run directory")
    save_every: int = Field(0, ge=0, description="steps between checkpoints (0: only at the end)")
    keep_checkpoints: int = Field(2, ge=1, description="how many checkpoints stay, the newest ones")

    @model_validator(mode="after")
    def _one_curriculum(self) -> Self:
        stages = self.budget_stages
        if stages and (sorted(set(stages)) != stages or stages[0] <= 0 or stages[-1] != 1):
            raise ValueError(f"budget_stages {stages} do not rise to 1, the whole budget: write them like 0.5 1")
        if stages and self.first_budget != 1:
            raise ValueError("first_budget and budget_stages are two curricula: leave out one of them")
        return self

    def budget_share(self, done: float) -> float:
        """The share of protocol.token_budget after the share `done` of training: that of its stage, or on a line."""
        done, stages = min(done, 1.0), self.budget_stages
        if stages:
            return stages[min(int(done * len(stages) + 1e-9), len(stages) - 1)]
        return self.first_budget + (1 - self.first_budget) * done

    @property
    def most_steps(self) -> int:
        """Updates after which training ends, whatever is left of a budget of tokens."""
        return self.steps * (1 if self.token_budget is None else BUDGET_STEPS)

    @property
    def token_budget(self) -> int | None:
        """Tokens to train until, of those that `spent` counts; None: as many as `steps` take."""
        return self.sampled_tokens or self.total_tokens

    def spent(self, ledger: TokenLedger) -> int:
        """The tokens of the ledger that count towards the budget."""
        return ledger.sampled if self.total_tokens is None else ledger.total

    @property
    def rows(self) -> int:
        """Trajectories per update."""
        return self.problems_per_step * self.group_size


class EvaluationSection(Section):
    """What held-out problems are asked before and after training."""

    every: int = Field(0, ge=0, description="evaluate also after every so many steps (0: only before and after)")
    samples: int = Field(1, gt=0, description="trajectories per held-out problem")
    small_set: int = Field(100, ge=0, description="a held-out set of fewer problems is small")
    small_set_samples: int = Field(1, gt=0, description="trajectories per problem of a small set, at least")
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    extra_revisions: float = Field(2.0, ge=1, description="also report at this multiple of the trained revision limit")
    budgets: list[PositiveFloat] = Field(
        [0.25, 0.5, 1.0, 2.0], description="report regret at these multiples of protocol.token_budget"
    )
    frozen_prover: bool = Field(
        True, description="also measure regret by the frozen base's values: one prover for all policies"
    )
    extra_rounds: list[PositiveInt] = Field(
        [], description="also evaluate under budget forcing: checks asked for when the model would stop, e.g. 2 4 6 8"
    )
    linearised_revisions: float = Field(
        0, ge=0, description="also evaluate at this multiple of the trained revisions in a sliding window (0: do not)"
    )
    window: int = Field(6, gt=0, description="last turns that the model sees in the sliding window")
    forced_answers: int = Field(0, ge=0, description="also force so many answers after each turn, and vote (0: do not)")
