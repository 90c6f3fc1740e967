"""The run directory, the one place where a run leaves anything.

config.yaml                      the resolved config; `--config` takes it
plugins/                         the user's own files among the plug-ins, as config.yaml names them
inputs.json                      what else it reads: see `backtrack_mrt.runs.inputs`
metrics.jsonl                    one JSON object per step, `step` first; what is not a finite number is null
evaluations.jsonl                one JSON object per evaluation: `step`, `name`, results as in summary.json, `ledger`
trajectories/step_000010.jsonl   the rollouts of a step, one per line (`backtrack_mrt.runs.records`)
checkpoints/step_000016/         see `backtrack_mrt.runs.checkpoints`
collected/                       what self-training collected: see `backtrack_mrt.training.self_training`
skipped/                         batches of steps that were skipped: see `backtrack_mrt.training.safety`
model/                           the trained policy: a LoRA adapter, or all weights
alarms.json, calibration.json    what was told at the start, and how good the values are (`evaluation.calibration`)
summary.json                     the results
seconds.json                     see `backtrack_mrt.runs.seconds`
report.html, figures/            the results for people (`backtrack_mrt.reports`)
tensorboard/                     with report_to: tensorboard
lock                             held by the run at work: see `backtrack_mrt.runs.lock`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one

from backtrack_mrt.config import Config, Existing
from backtrack_mrt.config.files import read_config, read_layer
from backtrack_mrt.config.yaml_text import as_yaml
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.durable import remove, replacing, unfinished
from backtrack_mrt.runs.jsonl import json_text, plain_json
from backtrack_mrt.runs.kinds import holds_comparison, not_to_resume
from backtrack_mrt.runs.lock import LOCK, locked
from backtrack_mrt.runs.processes import is_main, main_only, tell
from backtrack_mrt.runs.records import write_trajectories
from backtrack_mrt.types import Scored

MOST_ROLLOUTS = 200  # files with the rollouts of a step: they stay, spread over the run

# What a run writes, and `--overwrite` therefore deletes. Anything else in the directory is the user's.
OWN = (
    *("config.yaml", "plugins", "inputs.json", "metrics.jsonl", "evaluations.jsonl", "trajectories", "checkpoints"),
    *("collected", "skipped", "stages", "model", "calibration.json", "alarms.json", "summary.json", "seconds.json"),
    *("evaluation.json", "report.html", "figures", "tensorboard", "collapsed.json"),
)


class _Metrics(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]
    step: int


class _Evaluation(_Metrics):
    name: str
    ledger: dict[str, int]


_LINES: dict[str, TypeAdapter[Any]] = {
    "metrics.jsonl": TypeAdapter(_Metrics),
    "evaluations.jsonl": TypeAdapter(_Evaluation),
}


class Follower(Protocol):
    """Who is told what the run logs."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, or held-out results under names that start with ``eval/``."""

    def traces(self, step: int, scored: Sequence[Scored]) -> None:
        """The rollouts of a step."""


class RunDir:
    """The run directory at `path`. `check` looks without touching, `create` writes. Every process of a run may call
    what writes: only the main one does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path, self.metrics_path = path / "config.yaml", path / "metrics.jsonl"
        self.evaluations_path = path / "evaluations.jsonl"
        self.trajectories, self.checkpoints = path / "trajectories", path / "checkpoints"
        self.collected, self.skipped = path / "collected", path / "skipped"
        self.followers: list[Follower] = []
        self.summary_path, self.model = path / "summary.json", path / "model"

    @classmethod
    def check(cls, config: Config, existing: Existing = "refuse", *, accept_changes: bool = False) -> RunDir:
        """The config's run directory, if a run may start or resume in it; nothing is written. Raises UserError for a
        directory in use, a resumed run that is not there, and one whose config differs (unless that is accepted)."""
        run = cls(config.run_path)
        if changed := run._look(config, existing, accept_changes):
            tell(f"resuming {run.path} with another config (saved → now): {changed}")
        return run

    @classmethod
    def create(cls, config: Config, existing: Existing = "refuse", *, accept_changes: bool = False) -> RunDir:
        """`check`, then make the directory and save the config. Overwriting deletes what a run writes (`OWN`) and
        nothing else, and says so."""
        run = cls(config.run_path)
        if is_main():  # it may have begun to write before the others look
            run._look(config, existing, accept_changes)
            run._make(config, existing)
        return run

    def _look(self, config: Config, existing: Existing, accept_changes: bool) -> str:
        """`check`, but what has changed in the config of a resumed run is returned and not told."""
        if self.path.exists() and not self.path.is_dir():
            raise self._refusal("is a file", "Choose another --output-dir.")
        in_use = self.path.is_dir() and not all(map(_is_left_over, self.path.iterdir()))
        if existing == "resume":
            return self._changed(config, accept_changes)
        if existing == "overwrite" and in_use and not self._is_run():
            raise self._refusal("holds no run, so --overwrite will not delete anything", "Choose another directory.")
        if holds_comparison(self.path):
            raise self._refusal("is that of a comparison, and this is one run", "Choose another directory.")
        if in_use and existing == "refuse":
            remedy = "Continue it with --resume, replace it with --overwrite, or choose another."
            raise self._refusal("is in use", remedy)
        return ""

    def _make(self, config: Config, existing: Existing) -> None:
        try:
            if existing == "overwrite" and self._is_run():
                self._delete()
            self.path.mkdir(parents=True, exist_ok=True)
            for source in config.sources.values():
                source.write(self.path)
            with replacing(self.config_path) as file:  # from here on, and not before, it is a run
                file.write(as_yaml(config.resolved()))
            for folder in (self.trajectories, self.checkpoints):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise self._refusal(f"cannot be written: {error.strerror}", "Choose another --output-dir.") from error

    def locked(self) -> AbstractContextManager[None]:
        """Keep other runs out of the directory within the block; see `backtrack_mrt.runs.lock`."""
        return locked(self.path) if is_main() else nullcontext()

    @main_only
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        line = {"step": step} | {name: plain_json(value) for name, value in metrics.items()}
        jsonl.append(self.metrics_path, [line])
        for follower in self.followers:
            follower.log(step, line)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line torn by a crash is left out."""
        return _rows(self.metrics_path)

    @property
    def steps(self) -> int:
        """Updates that were logged."""
        return max((line["step"] for line in self.metrics()), default=0)

    @main_only
    def log_evaluation(self, step: int, name: str, results: Mapping[str, Any]) -> None:
        """Add a line to evaluations.jsonl, unless the run that this one resumes did. Followers get the means of the
        estimates."""
        earlier, line = self.evaluations(), {"step": step, "name": name} | plain_json(results)
        if any((other["step"], other["name"]) == (step, name) for other in earlier):
            return
        jsonl.write(self.evaluations_path, [*earlier, line])
        estimates = {key: found for key, found in line.items() if isinstance(found, dict) and "mean" in found}
        estimates |= {f"protocol/{key}": found for key, found in line.get("protocol", {}).items()}
        means = {f"eval/{key}": found["mean"] for key, found in estimates.items()}
        for follower in self.followers:
            follower.log(step, means)

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of evaluations.jsonl."""
        return _rows(self.evaluations_path)

    @main_only
    def save_trajectories(self, step: int, scored: Sequence[Scored]) -> None:
        """Write the rollouts of a step. When there are more than `MOST_ROLLOUTS` files, every second one goes."""
        write_trajectories(self.trajectories / f"step_{step:06d}.jsonl", scored)
        for follower in self.followers:
            follower.traces(step, scored)
        kept = sorted(self.trajectories.glob("step_*.jsonl"))
        if len(kept) > MOST_ROLLOUTS:
            for path in kept[1:-1:2]:
                path.unlink()

    @main_only
    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a file such as summary.json; numbers that are not finite become null."""
        with replacing(self.path / name) as file:
            file.write(json_text(content))

    @main_only
    def take_over(self, evaluation: Path) -> None:
        """The trajectories of another run's evaluation are this one's too."""
        with replacing(self.trajectories / evaluation.name) as file:
            file.write(evaluation.read_text(encoding="utf-8"))

    @main_only
    def rewind(self, step: int) -> None:
        """Forget what came after `step`: a resumed run does those steps again."""
        jsonl.write(self.metrics_path, [line for line in self.metrics() if line["step"] <= step])
        kept = [line for line in self.evaluations() if line["step"] <= step and line["name"] != "trained"]
        jsonl.write(self.evaluations_path, kept)
        for pattern in ("step_*.jsonl", "evaluation_step_*.json*"):
            for path in self.trajectories.glob(pattern):
                if int(path.stem.rpartition("_")[2]) > step:
                    path.unlink()
        for path in self.trajectories.glob("evaluation_trained*"):
            path.unlink()

    def _is_run(self) -> bool:
        try:
            return {"algo", "env", "training"} <= read_layer(str(self.config_path)).values.keys()
        except UserError:
            return False

    def _changed(self, config: Config, accept_changes: bool) -> str:
        if not self.config_path.exists():
            raise not_to_resume("--output-dir", self.path)
        if not self._is_run():
            remedy = "Put it back as the run saved it, or start anew elsewhere."
            raise self._refusal("its config.yaml is damaged, or no run's", remedy)
        saved, now = (_flat(c.resolved()) for c in (read_config(str(self.config_path)), config))
        changed = "; ".join(
            f"{name}: {saved.get(name)!r} → {now.get(name)!r}"
            for name in now | saved
            if saved.get(name) != now.get(name) and not _has_moved(name, saved, now)
        )
        if changed and not accept_changes:
            raise self._refusal(
                f"its config differs (saved → now): {changed}",
                f"Resume with --config {self.config_path}, or with --accept-changes, or start anew elsewhere.",
            )
        return changed

    def _delete(self) -> None:
        found = [self.path / name for name in OWN if (self.path / name).exists()]
        if found:
            print(f"overwriting {self.path}: deleting {', '.join(path.name for path in found)}")
        for path in found:
            remove(path)

    def _refusal(self, reason: str, remedy: str) -> UserError:
        return UserError("--output-dir", str(self.path), reason, remedy)


def _has_moved(name: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a setting says where something is: the run's directory, or servers, in another place than before."""
    served = bool(saved.get("engine.server")) and bool(now.get("engine.server"))
    return name == "output_dir" or (name in ("engine.server", "engine.adapters") and served)


def _is_left_over(path: Path) -> bool:
    """Whether an entry of a run directory is no more than a run leaves that was ended before it saved its config."""
    config = path.with_name("config.yaml")
    if path.name == LOCK or path == unfinished(config) or (path.name == "plugins" and not config.exists()):
        return True
    return path.name in OWN and path.is_dir() and not any(path.iterdir())


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or evaluations.jsonl; none if there is no such file."""
    if not path.exists():
        return []
    made, remedy = _LINES[path.name].validate_python, "Delete this line: the others can be read without it."
    return list(jsonl.read(path, made, what="what a run logs", field=path.name, remedy=remedy, torn=True))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = dict[str, Any]()
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
