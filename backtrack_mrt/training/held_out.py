"""Held-out results over a run: before training, every so many updates, after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from backtrack_mrt.config import Config
from backtrack_mrt.data.signs import first_wrong_step
from backtrack_mrt.evaluation.evaluate import measure
from backtrack_mrt.evaluation.metrics.summary import Summary
from backtrack_mrt.reports.build import rebuild
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.types import Problem, TokenLedger


@dataclass(frozen=True)
class HeldOut:
    """Evaluates the policy as it is on the held-out `problems`."""

    parts: Assembly
    problems: Sequence[Problem]
    run: RunDir

    @property
    def ledger(self) -> TokenLedger:
        """The tokens of all evaluations so far, also before a resume."""
        return sum((TokenLedger(**line["ledger"]) for line in self.run.evaluations()), TokenLedger())

    def evaluate(self, name: str, step: int, config: Config | None = None) -> Summary:
        """All that the config (None: the run's) asks for, after so many updates. The trajectories and the results are
        kept in the run directory; a resumed run reads the trajectories that are there."""
        collector = self.parts.evaluation_collector(base=name == "base")
        asked, kept = config or self.parts.config, self.run.trajectories
        summary, spent = measure(asked, collector, self.problems, first_wrong_step, name, kept)
        self.run.log_evaluation(step, name, asdict(summary) | {"ledger": asdict(spent)})
        return summary

    def between_steps(self, step: int) -> float:
        """The plain evaluation, if it is time for one after so many updates, and a new report. Returns the seconds
        that this took."""
        config = self.parts.config
        every, start = config.evaluation.every, time.perf_counter()
        if not every or step % every:
            return 0.0
        further = {"extra_rounds": [], "linearised_revisions": 0, "forced_answers": 0}
        plain = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=further)})
        self.evaluate(f"step_{step:06d}", step, plain)
        rebuild(self.run.path)
        return time.perf_counter() - start
