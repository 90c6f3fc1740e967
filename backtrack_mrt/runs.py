"""Finished runs, as read back from their directories, and numbers over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from backtrack_mrt.cli import config_from
from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.metrics import Estimate
from backtrack_mrt.runlog import RunDir


@dataclass(frozen=True)
class Run:
    """A finished run, as read from its directory."""

    path: Path
    config: Config
    summary: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]] = ()

    @property
    def label(self) -> str:
        """The algorithm, with its settings where they are not the defaults."""
        settings, defaults = self.config.algorithm.model_dump(), type(self.config.algorithm)().model_dump()
        told = [f"{name}={value}" for name, value in settings.items() if value != defaults[name]]
        return f"{self.config.algo} ({', '.join(told)})" if told else self.config.algo

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled in training."""
        return int(self.summary["tokens"]["training"]["sampled"])

    def mean(self, *place: str | int) -> float:
        """The mean of the estimate at `place` in summary.json; NaN where it has none."""
        found: Any = self.summary
        for key in place:
            found = found[key]
        return mean_of(found)


def mean_of(estimate: Mapping[str, Any]) -> float:
    """The mean of an estimate in summary.json; NaN where it has none."""
    return float("nan") if estimate["mean"] is None else float(estimate["mean"])


def read_run(path: Path) -> Run:
    """The finished run in a directory. Raises UserError if there is none."""
    run = RunDir(path)
    if not run.summary_path.exists():
        raise UserError("run", str(path), "it holds no finished run (no summary.json)", "Give directories of runs.")
    summary = json.loads(run.summary_path.read_text(encoding="utf-8"))
    return Run(path, config_from(str(run.config_path)), summary, run.metrics(), run.evaluations())


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean with its 95 % Student interval over seeds; NaN limits with fewer than two."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), n)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)
