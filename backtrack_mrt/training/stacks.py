"""What `conform` asks: this project's credit, and the advantages of other trainers that are installed, by their own
functions. Each is given turns' progress in the form that it has for it: a reward per token, or one per episode."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from itertools import groupby
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from backtrack_mrt import __version__, credit
from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import in_words
from backtrack_mrt.evaluation.conformance import CreditedEpisode, Stack
from backtrack_mrt.policy.files import TINY, find_model
from backtrack_mrt.training.mrt_trainer import MRTTrainer
from backtrack_mrt.types import FloatArray, Trajectory

VERL, SKYRL = "verl.trainer.ppo.core_algos", "skyrl.backends.skyrl_train.utils.ppo_utils"


class Ours(Stack):
    """`backtrack_mrt.credit` with settings of an algorithm."""

    def __init__(self, algo: str, **settings: Any) -> None:
        self.algo, self.settings = algo, settings
        told = ", ".join(str(value) for value in settings.values())
        self.name = f"backtrack-mrt {__version__}: {algo}{f', {told}' if told else ''}"

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        outcomes, values = [e.outcome for e in group], [e.values for e in group]
        return credit.token_advantages([e.turns for e in group], outcomes, values, algo=self.algo, **self.settings)


class TurnMeans(Stack):
    """A control that must fail: rewards from a turn on, less their mean over the group's turns of the same number."""

    name = "control: a mean per turn number"

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        rewards = [np.array([*e.progress[:-1], e.progress[-1] + e.outcome]) for e in group]
        longest = max(map(len, rewards))
        means = np.array([np.mean([row[j] for row in rewards if len(row) > j]) for j in range(longest)])
        centred = [row - means[: len(row)] for row in rewards]
        to_go = [np.append(np.cumsum(row[::-1])[::-1], 0.0) for row in centred]
        return [np.array(row)[np.array(episode.turns)] for row, episode in zip(to_go, group, strict=True)]


class InTrl(Stack):
    """TRL's trainer, with TRL's own rewards (one for an episode) or as `MRTTrainer` with progress per turn."""

    def __init__(self, kind: type[GRPOTrainer]) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = f"TRL {version('trl')}: {kind.__name__}"
        self._group: Sequence[CreditedEpisode] = ()
        self._mine = kind is MRTTrainer
        folder = find_model(ModelSection(name_or_path=TINY))
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        given: dict[str, Any] = {"values": self._values} if self._mine else {}
        args = GRPOConfig(
            mkdtemp(),
            num_generations=2,
            per_device_train_batch_size=2,
            bf16=False,
            use_cpu=True,
            report_to="none",
            scale_rewards="none",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rollout_func is an experiment of theirs
            self._trainer = kind(
                AutoModelForCausalLM.from_pretrained(folder),
                self._rewards,
                args,
                Dataset.from_list([{"prompt": "?"}]),
                processing_class=self._tokenizer,
                rollout_func=self._rolled_out,
                **given,
            )

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        self._group = group
        trainer: Any = self._trainer
        trainer.num_generations = len(group)
        trainer.model.train()
        output = trainer._generate_and_score_completions([{"prompt": "?"} for _ in group])
        found, mask = output["advantages"].cpu().double(), output["completion_mask"] * output["tool_mask"]
        if found.dim() == 1:  # a number for an episode: its loss spreads it over the tokens that count
            found = found[:, None] * mask
        return [row[: len(e.mask)].numpy() for row, e in zip(found, group, strict=True)]

    def _rolled_out(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        filler = self._tokenizer.eos_token_id
        return {
            "prompt_ids": [[filler] for _ in prompts],
            "completion_ids": [[filler] * len(e.mask) for e in self._group],
            "env_mask": [e.mask for e in self._group],
            "logprobs": None,
        }

    def _values(self, trajectories: Sequence[Trajectory]) -> list[FloatArray]:
        return [e.values for e in self._group]

    def _rewards(self, completions: Sequence[Any], **_: Any) -> list[float | None]:
        return [e.outcome if self._mine else e.total for e in self._group]


class TokenRewards(Stack):
    """A function of verl or SkyRL: rewards by token (a turn's on its last token), a mask and groups in, advantages
    out."""

    def __init__(self, package: str, module: str, function: str, **settings: Any) -> None:
        self.name = f"{package} {version(package)}: {function}"
        self._function: Callable[..., Any] = getattr(import_module(module), function)
        self._settings = settings

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        width = max(len(e.mask) for e in group)
        mask, rewards = torch.zeros(len(group), width), torch.zeros(len(group), width)
        for i, e in enumerate(group):
            mask[i, : len(e.mask)] = torch.tensor(e.mask, dtype=torch.float32)
            for j, progress in enumerate(e.progress):
                rewards[i, max(t for t, turn in enumerate(e.turns) if turn == j)] += progress
            rewards[i, len(e.mask) - 1] += e.outcome
        given: Mapping[str, Any] = {
            "token_level_rewards": rewards,
            "response_mask": mask,
            "index": np.array(["group"] * len(group)),
            "values": torch.zeros_like(rewards),
            **self._settings,
        }
        names = signature(self._function).parameters
        found, _ = self._function(**{name: value for name, value in given.items() if name in names})
        found = found * mask  # as their losses do
        return [row[: len(e.mask)].double().numpy() for row, e in zip(found, group, strict=True)]


class VerifiersTrace(Stack):
    """The trace of verifiers (what prime-rl trains on) as a carrier: our credit, given to its nodes and read again."""

    def __init__(self) -> None:
        self.name = f"verifiers {version('verifiers')}: a trace's advantages, set by backtrack-mrt"
        self._branch = import_module("verifiers.v1.trace").Branch
        self._node = import_module("verifiers.v1.graph").MessageNode
        self._ours = Ours("mrt-rl")

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        return [self._carried(e, row) for e, row in zip(group, self._ours.advantages(group), strict=True)]

    def _carried(self, episode: CreditedEpisode, row: FloatArray) -> FloatArray:
        nodes = []
        for turn, run in groupby(range(len(row)), lambda t: episode.turns[t]):
            places = list(run)
            credit_of = [float(row[t]) for t in places] if turn >= 0 else None
            mask = [turn >= 0] * len(places)
            nodes.append(self._node.model_construct(token_ids=places, mask=mask, advantages=credit_of))
        branch = self._branch.model_construct(index=0, nodes=nodes)
        return np.array(branch.advantages, dtype=np.float64)


def stacks() -> tuple[list[Stack], list[str]]:
    """All that can be asked here, and why others cannot."""
    found: list[Stack] = [
        Ours("mrt-rl"),
        Ours("mrt-rl", credit="return_to_go"),
        Ours("grpo"),
        InTrl(MRTTrainer),
        InTrl(GRPOTrainer),
        TurnMeans(),
    ]
    missing = []
    made: list[tuple[str, Callable[[], Stack]]] = [
        ("verifiers", VerifiersTrace),
        ("verl", lambda: TokenRewards("verl", VERL, "compute_grpo_outcome_advantage", norm_adv_by_std_in_grpo=False)),
        ("verl", lambda: TokenRewards("verl", VERL, "compute_rloo_outcome_advantage")),
        ("verl", lambda: TokenRewards("verl", VERL, "compute_gae_advantage_return", gamma=1.0, lam=1.0)),
        ("skyrl", lambda: TokenRewards("skyrl", SKYRL, "compute_grpo_outcome_advantage", grpo_norm_by_std=False)),
        ("skyrl", lambda: TokenRewards("skyrl", SKYRL, "compute_rloo_outcome_advantage")),
        ("skyrl", lambda: TokenRewards("skyrl", SKYRL, "compute_gae_advantage_return", gamma=1.0, lambd=1.0)),
    ]
    for name, make in made:
        try:
            found.append(make())
        except PackageNotFoundError:
            missing.append(f"{name}: not installed (docs/conformance.md)")
        except Exception as error:  # whatever a third party's module does at import
            missing.append(f"{name}: {in_words(error)[:200]}")
    return found, sorted(set(missing))
