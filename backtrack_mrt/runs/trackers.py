"""Trackers (TensorBoard, W&B, trackio): they get what metrics.jsonl gets, under the same names, and sample traces.

The callbacks of transformers are not used: they put `train/` before every name, and know neither the times of a step
nor the rollouts of self-training. accelerate's trackers hand on what they are given.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.trace import render_trace
from backtrack_mrt.types import Scored

PROJECT = "backtrack_mrt"  # unless WANDB_PROJECT or TRACKIO_PROJECT says otherwise
EVERY = 10  # steps between sample traces
TRACES = "traces"  # their name
COLUMNS = ["step", "problem", "outcome", "trace"]


class Trackers:
    """The trackers that the config names. Raises UserError for one whose package is missing."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._open: dict[str, Any] = {}
        for name in config.report_to:
            spec = find_spec(name)
            if spec is None or spec.origin is None:  # W&B's own folder ./wandb looks like a package without an origin
                remedy = f"pip install 'backtrack-mrt[{name}]', or leave it out."
                raise UserError("report_to", name, "its package is not installed", remedy)

    @processes.main_only
    def follow(self, run: RunDir) -> None:
        """Log what the run logs from now on. Raises UserError for a tracker that cannot be started."""
        if not self.config.report_to:
            return
        from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker  # they load torch

        processes.join()
        known = {"wandb": WandBTracker, "trackio": TrackioTracker}
        for name in self.config.report_to:
            if name == "tensorboard":
                self._open[name] = TensorBoardTracker(name, str(run.path))
                continue  # it starts with the first step: a resumed run hides there what it does again
            project = os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
            tracker = known[name](project, name=run.path.name, config=self.config.resolved())
            try:
                tracker.start()
            except Exception as error:  # no login, no network: the library's word tells which
                reason = f"it cannot be started: {' '.join(str(error).split())}"
                raise UserError("report_to", name, reason, "Log in, or leave it out.") from error
            self._open[name] = tracker
        run.followers.append(self)

    def close(self) -> None:
        """Tell them that the run is over."""
        for name in list(self._open):
            if name != "tensorboard" or hasattr(self._open[name], "writer"):
                self._try(name, "finish")
        self._open.clear()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; a number that is not finite is left out."""
        numbers = {name: value for name, value in metrics.items() if name != "step" and value is not None}
        for name in list(self._open):
            self._at(name, step)
            self._try(name, "log", numbers, step=step)

    def traces(self, step: int, scored: Sequence[Scored]) -> None:
        """The trajectories of a step with the least and the most success and progress, every so often."""
        if step % EVERY != 1 or not scored:
            return
        ranked = sorted(scored, key=_success)
        rows = [_row(step, member) for member in (ranked[0], ranked[-1])]
        for name in list(self._open):
            self._at(name, step)
            if name == "wandb":
                self._try(name, "log_table", TRACES, columns=COLUMNS, data=rows, step=step)
            elif name == "trackio":
                import trackio

                self._try(name, "log", {TRACES: trackio.Table(columns=COLUMNS, data=rows)}, step=step)
            else:
                self._try(name, "log", {TRACES: "\n\n---\n\n".join(str(row[-1]) for row in rows)}, step=step)

    def _at(self, name: str, step: int) -> None:
        tracker = self._open[name]
        if name == "tensorboard" and not hasattr(tracker, "writer"):
            tracker.init_kwargs["purge_step"] = step
            tracker.start()

    def _try(self, name: str, method: str, *arguments: Any, **named: Any) -> None:
        """A tracker that fails is left alone from then on: the run matters more."""
        try:
            getattr(self._open[name], method)(*arguments, **named)
        except Exception as error:
            print(f"report_to: {name} has failed and gets no more: {error}", file=sys.stderr)
            del self._open[name]


def _success(scored: Scored) -> tuple[float, float]:
    return scored.trajectory.outcome, 0.0 if scored.values is None else float(scored.progress.sum())


def _row(step: int, scored: Scored) -> list[Any]:
    """The trace is indented: in Markdown that is text as it stands."""
    trajectory = scored.trajectory
    trace = textwrap.indent(render_trace(trajectory, scored.values), " " * 4, lambda line: True)
    return [step, trajectory.problem.id, trajectory.outcome, trace]
