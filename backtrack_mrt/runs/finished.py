"""Finished runs, as read back from their directories, and those that broke down on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one

from backtrack_mrt.config import Config, Ledger
from backtrack_mrt.config.files import read_config
from backtrack_mrt.errors import RunError, UserError
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
COLLAPSED = "collapsed.json"  # in the directory of a run that is part of something larger: why its training broke down
_LOST: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
_ACCURACIES = ("accuracy", "accuracy_prolonged")


@dataclass(frozen=True)
class Run:
    """A finished run, as read from its directory. lost: why its training broke down. Then the accuracy of what was
    trained counts as 0, whatever it was when it was last measured, and all else of it is unknown."""

    path: Path
    config: Config
    summary: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]] = ()
    lost: str = ""

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
    history, evaluations = run.metrics(), run.evaluations()
    steps = {row["step"] for row in history}
    if missing := [line["step"] for line in evaluations if line["step"] and line["step"] not in steps]:
        reason = f"there is no line for step {missing[0]}, at which the run was evaluated"
        raise UserError("metrics.jsonl", str(run.metrics_path), reason, "Put the file back, or do the run again.")
    return Run(path, read_config(str(run.config_path)), summary, history, evaluations)


def unfinished_run(path: Path) -> Run:
    """What there is of a run that has not finished: its summary holds what its evaluations and its log so far say."""
    run = RunDir(path)
    config, history, evaluations = read_config(str(run.config_path)), run.metrics(), run.evaluations()
    summary: dict[str, Any] = {"algo": config.algo_label, "trained_answers": config.protocol.max_answers}
    summary |= {line["name"]: line for line in evaluations if line["name"] in ("base", "trained")}
    training = {
        kind: sum(row.get(f"tokens/step_{kind}") or 0 for row in history) for kind in ("sampled", "env", "prover")
    }
    summary["tokens"] = {"training": training | {"total": sum(training.values())}}
    return Run(path, config, summary, history, evaluations)


def ended_run(path: Path) -> Run | None:
    """The run in a directory, if it has finished or broken down; None if it has not (yet). Raises UserError for files
    that cannot be read."""
    if RunDir(path).summary_path.exists():
        return read_run(path)
    if not (path / COLLAPSED).exists():
        return None
    remedy = "Delete it, and the run is done again."
    told = read_whole(path / COLLAPSED, _LOST.validate_python, what="why a run ended", field=COLLAPSED, remedy=remedy)
    run = unfinished_run(path)
    lost = _without_numbers(run.summary["base"])
    last = lost | {"name": "trained", "step": max((row["step"] for row in run.history), default=0)}
    seconds = {"train": sum(row.get("time/step") or 0.0 for row in run.history)}
    summary = {**run.summary, "trained": lost, "seconds": seconds}
    return replace(run, summary=summary, evaluations=[*run.evaluations, last], lost=told["reason"])


def has_broken_down(path: Path, reason: str) -> None:
    """Note it in the run's directory. Raises RunError where not even the base was evaluated: then it was not the
    training."""
    if not any(line["name"] == "base" for line in RunDir(path).evaluations()):
        raise RunError(reason, "It was so before the training.")
    RunDir(path).save(COLLAPSED, {"reason": reason})


def _without_numbers(found: Any) -> Any:
    """A summary's estimates, none of them known, but accuracies of 0."""
    if isinstance(found, Mapping):
        unknown = {"mean": None, "low": None, "high": None}
        if "mean" in found:
            return {**found, **unknown, "n": 0}
        zero = {name: {**found[name], **unknown, "mean": 0.0} for name in _ACCURACIES if "mean" in found.get(name, ())}
        return {name: _without_numbers(value) for name, value in found.items()} | zero
    return [_without_numbers(item) for item in found] if isinstance(found, list) else found
