"""MRT inside TRL: `MRTTrainer` is TRL's `GRPOTrainer` with a weight per turn, for TRL's own episodes.

Whatever plays them (`environment_factory`, `rollout_func`, plain generation), what TRL masks as the environment's cuts
an episode into turns; a meta-prover says what every prefix is worth; and the credits of `backtrack_mrt.algos` take the
place of the one scalar that TRL has for all of it. Nothing else of TRL is changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from trl.trainer.grpo_trainer import GRPOTrainer

from backtrack_mrt import credit
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.data.answers import read_gold
from backtrack_mrt.errors import UserError, short
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.rollouts.assembly import dialogue_with
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.prover import LikelihoodProver
from backtrack_mrt.runs.processes import gathered
from backtrack_mrt.training.environments import checked_rollouts, telling_factory
from backtrack_mrt.types import FloatArray, Problem, Trajectory, as_rows

Values = Callable[[Sequence[Trajectory]], Sequence[FloatArray]]  # V_0 … V_E of each, (E+1,)
_GOLDS = ("answer", "solution")
_REMEDY = "Add the gold in a column 'answer', or give `values`."


class MRTTrainer(GRPOTrainer):
    """`GRPOTrainer` with MRT's credit per turn; its arguments, and by keyword:

    values: what the prefixes of episodes are worth: `prover.values` of a `credit.served_prover`, or a function of your
    own. By default the trained policy itself is asked for the answer, whose gold is the data set's column `answer` or
    `solution` (read as in files of problems); `prompts` are the words that ask, a style of `prompts/open_ended` or a
    folder of yours.
    algo, settings: the algorithm, by name, path or as an instance, and its own settings (``{"alpha": 0.5}``).
    cuts: offsets at which what was sampled in one go falls into several turns (``OpenEnded().cuts`` for a thought).

    The outcome R is the weighted sum of TRL's rewards; `scale_rewards="group"` divides R's advantage as TRL does.
    Raises UserError.
    """

    def __init__(
        self,
        *args: Any,
        values: Values | None = None,
        prompts: str = "instruct",
        algo: str | Algorithm = "mrt-rl",
        settings: Mapping[str, Any] | None = None,
        cuts: Callable[[str], Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        if values is not None and (not callable(values) or inspect.iscoroutinefunction(values)):
            reason = "not a function from episodes to their values"
            raise UserError("values", values, reason, "Pass prover.values, or a plain function of yours.")
        for name, checked in (("environment_factory", telling_factory), ("rollout_func", checked_rollouts)):
            if name in kwargs:
                kwargs[name] = checked(kwargs[name])
        super().__init__(*args, **kwargs)
        if self.scale_rewards == "batch":
            reason = "an outcome is compared within its group"
            raise UserError("scale_rewards", "batch", reason, 'Set it to "group" or "none".')
        self.algorithm = credit.algorithm(algo, self._scaled(algo, settings or {}))
        self.cuts, self.values = cuts, values or self._policy_values
        if values is None and self.algorithm.needs_values and not self.algorithm.asks_prover:
            reason = "no answers are graded on the way of an episode here"
            raise UserError("settings", {"values": "stated"}, reason, "Leave it out, or pass values=…: a function.")
        columns = getattr(self.train_dataset, "column_names", None)  # None: not known before it is read
        if values is None and self.algorithm.needs_values and columns and not {*columns} & {*_GOLDS}:
            raise UserError("train_dataset", columns, "no column holds the answer", _REMEDY)
        self.latest_trajectories: list[Trajectory] = []  # this process's latest episodes
        self.latest_values: list[FloatArray] = []
        self._rewards = torch.zeros(0)
        self._prompts = prompts
        self._prover: LikelihoodProver | None = None

    def _scaled(self, algo: str | Algorithm, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings, with TRL's scale of outcomes where the algorithm has one and nobody said otherwise."""
        fields = type(algo).model_fields if isinstance(algo, Algorithm) else credit.algorithm_named(algo).model_fields
        if isinstance(algo, Algorithm) or "scale_outcome" not in fields:
            return settings
        return {"scale_outcome": self.scale_rewards == "group", **settings}

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        """TRL's: (N, F) of all processes' rows. What they add up to is the outcome."""
        self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.model is None or not self.model.training:  # an evaluation of TRL's: its groups may be of one
            return output
        sampled_BT = output["completion_mask"] * output.get("tool_mask", torch.ones(()).to(output["completion_mask"]))
        turns = [credit.turn_index(mask) for mask in sampled_BT.cpu().numpy()]
        if self.cuts is not None:
            rows = zip(turns, output["completion_ids"].tolist(), strict=True)
            turns = [credit.cut_turns(index, ids, self._tokenizer, self.cuts) for index, ids in rows]
        self.latest_trajectories = [
            credit.trajectory(self._problem(row), prompt[kept.bool()].tolist(), ids.tolist(), index, self._tokenizer)
            for row, prompt, kept, ids, index in zip(
                inputs, output["prompt_ids"], output["prompt_mask"], output["completion_ids"], turns, strict=True
            )
        ]
        given: object = self.values(self.latest_trajectories) if self.algorithm.needs_values else []
        if (values := as_rows(given)) is None:
            raise UserError("values", short(given), "not arrays of numbers", "Return V_0 … V_E of each.")
        self.latest_values = values
        advantages = self._advantages(turns)
        weights_BT = torch.zeros(sampled_BT.shape)
        for row, found in zip(weights_BT, advantages, strict=True):
            row[: len(found)] = torch.from_numpy(found).float()
        output["advantages"] = weights_BT.to(sampled_BT.device)
        self._log_turns()
        return output

    def _advantages(self, turns: Sequence[NDArray[np.int64]]) -> list[FloatArray]:
        """Of this process's rows; a group may lie across processes. Rows that no reward function scored have none."""
        everyone, values = gathered(turns), gathered(self.latest_values)
        weights = self.reward_weights.to(self._rewards.device)
        outcomes = (self._rewards * weights).nansum(1).cpu().numpy().astype(np.float64)
        unscored = torch.isnan(self._rewards).all(1).cpu().numpy()
        assert self.num_generations is not None  # GRPOConfig's default is a number
        groups = np.arange(len(everyone)) // self.num_generations
        for group in set(groups[unscored]):
            some = outcomes[(groups == group) & ~unscored]
            outcomes[(groups == group) & unscored] = some.mean() if len(some) else 0.0
        found = credit.token_advantages(
            everyone, outcomes, values or None, problems=groups.tolist(), algo=self.algorithm
        )
        found = [row * (not missing) for row, missing in zip(found, unscored, strict=True)]
        first = self.accelerator.process_index * len(turns)
        return found[first : first + len(turns)]

    def _problem(self, row: Mapping[str, Any]) -> Problem:
        """What the data set says of an episode's problem. Members of a group have the same."""
        prompt = row.get("prompt") or ""
        question = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
        read = (read_gold(row.get(name), "auto", solution=name == "solution") for name in _GOLDS)
        gold = next((gold for gold, wrong in read if not wrong), "")
        return Problem(f"{prompt}|{gold}", question, gold)

    def _policy_values(self, trajectories: Sequence[Trajectory]) -> Sequence[FloatArray]:
        """How likely the policy would answer the gold, if it had to answer now."""
        if missing := [t.problem.question for t in trajectories if not t.problem.answer]:
            raise UserError("train_dataset", missing[0], "no answer is known, so the policy cannot be asked", _REMEDY)
        model: Any = self.accelerator.unwrap_model(self.model)
        if self._prover is None:
            dialogue = dialogue_with(self._tokenizer, load_prompts("open-ended", self._prompts))
            self._prover = LikelihoodProver(dialogue, HFEngine(model, max_rows=max(len(trajectories), 1)))
        model.eval()  # as TRL generates: no dropout, and a cache
        self._prover.engine.sync()
        try:
            return self._prover.values(trajectories)
        finally:
            self._prover.engine.release()
            model.train()

    def _log_turns(self) -> None:
        logged = {"turns": [float(len(t.turns)) for t in self.latest_trajectories]}
        if self.latest_values:
            logged |= {
                "value/first": [float(row[0]) for row in self.latest_values],
                "value/last": [float(row[-1]) for row in self.latest_values],
                "progress": [float(p) for row in self.latest_values for p in np.diff(row)],
            }
        for name, numbers in logged.items():
            everyone = gathered(numbers)
            self._metrics["train"][f"mrt/{name}"].append(float(np.mean(everyone)) if everyone else 0.0)
