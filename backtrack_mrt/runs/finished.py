"""Finished runs, as read back from their directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one

from backtrack_mrt.config import Config, Ledger
from backtrack_mrt.config.files import read_config
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.jsonl import read_whole
from backtrack_mrt.runs.kinds import not_finished


class _Results(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    algo: str
    trained_answers: int
    base: dict[str, Any]
    trained: dict[str, Any]
    tokens: dict[str, dict[str, float]]


_SUMMARY: TypeAdapter[Any] = TypeAdapter(_Results)


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
        return f"{self.config.algo_label} ({', '.join(told)})" if told else self.config.algo_label

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled in training."""
        return self.tokens("sampled")

    @property
    def ledger(self) -> Ledger:
        """Which tokens its budget counts."""
        return "sampled" if self.config.training.total_tokens is None else "total"

    def tokens(self, ledger: Ledger) -> int:
        """Tokens spent in training."""
        return int(self.summary["tokens"]["training"][ledger])

    @property
    def signal_to_noise(self) -> float:
        """Of the gradient, as a ratio of squares: means over all updates that tell it. NaN if none does."""
        rows = [row for row in self.history if row.get("gradient/noise") is not None]
        noise = sum(row["gradient/noise"] for row in rows)
        return sum(row["gradient/signal"] for row in rows) / noise if noise else float("nan")

    def mean(self, *place: str | int) -> float:
        """The mean of the estimate at `place` in summary.json; NaN where it has none."""
        found: Any = self.summary
        for key in place:
            found = found[key]
        return mean_of(found)


def mean_of(estimate: Mapping[str, Any]) -> float:
    """The mean of an estimate in summary.json; NaN where it has none."""
    return float("nan") if estimate["mean"] is None else float(estimate["mean"])


def read_run(path: str | Path) -> Run:
    """The finished run in a directory. Raises UserError if there is none."""
    path = Path(path)
    run = RunDir(path)
    if not run.summary_path.exists():
        raise not_finished("RUN", path)
    remedy = "Delete it, and let the run finish again with --resume."
    made = _SUMMARY.validate_python
    summary = read_whole(run.summary_path, made, what="the results of a run", field="summary.json", remedy=remedy)
    return Run(path, read_config(str(run.config_path)), summary, run.metrics(), run.evaluations())
