"""Progress of a loop: a live panel on a terminal, plain lines elsewhere. On stderr: stdout is for results."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from backtrack_mrt.runs.processes import is_main

SHORTEST_BAR = 8  # columns; without room for it there is none
PARTS = {  # of a step, as in time/…
    "evaluate": "evaluation",
    "wait": "waiting for rollouts",
    "rollout": "rollout",
    "prover": "prover",
    "grade": "grading",
    "update": "update",
}
PHASE = "progress/phase_"
MOST_PHASES = 6  # whose progress is shown


class Update(Protocol):
    """What `progress` hands to the loop."""

    def update(self, advance: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """`advance` more units are done. metrics: by the names of metrics.jsonl; the most telling ones are shown. Their
        `step`, if there is one, is how many units are done."""


@contextmanager
def progress(
    total: int,
    description: str,
    *,
    done: int = 0,
    unit: str = "",
    counted: Sequence[str] = (),
    seconds: float = 10.0,
) -> Iterator[Update]:
    """Shows how far `total` units of work are. Without a terminal: a line at most every `seconds`, and the last one. Of
    several processes only the main one shows its own. done: units that were done before, by a run that this one goes on
    with. unit: what is counted, where the description does not say it.
    counted: the metrics that tell how many tokens an update took; those are the units then."""
    if not is_main():
        yield _Silent()
        return
    state = _State(total, description, done, "tokens" if counted else unit, counted)
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        lines = _Lines(state, seconds)
        try:
            yield lines
        finally:
            lines.tell()
        return
    # What is printed meanwhile goes above the panel. Results that go to a file still do.
    with Live(state, console=console, redirect_stdout=sys.stdout.isatty()), _logs_above_the_panel():
        yield state


class _Silent:
    def update(self, advance: int = 1, metrics: Mapping[str, float] | None = None) -> None: ...


class _State:
    """How far the loop is; rich draws it anew several times a second."""

    def __init__(self, total: int, description: str, done: int, unit: str, counted: Sequence[str]) -> None:
        self.total, self.description, self.unit, self.counted = total, description, unit, counted
        self.done = self.before = done  # units: now, and when this process began
        self.figures: list[str] = []
        self._start = time.monotonic()

    def update(self, advance: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        metrics = metrics or {}
        if self.counted:
            self.done += sum(round(metrics[name]) for name in self.counted)
        elif "step" in metrics:
            self.done = round(metrics["step"])
        else:
            self.done += advance
        if metrics:
            self.figures = figures(metrics)

    @property
    def count(self) -> str:
        return f"{self.description} {self.done:,}/{self.total:,} {self.unit}".rstrip()

    @property
    def times(self) -> str:
        """The time so far, and the time left at the mean pace."""
        elapsed, here = time.monotonic() - self._start, self.done - self.before
        left = max(self.total - self.done, 0)
        eta = f" · {_clock(elapsed / here * left)} left" if here and left else ""
        return f"{_clock(elapsed)}{eta}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        room = width - cell_len(self.count) - cell_len(self.times) - 3
        if room >= SHORTEST_BAR:
            yield Text(f"{self.count} ", end="")
            yield ProgressBar(self.total, self.done, width=min(room, 40))
            yield Segment(f" {self.times}\n")
            rest = self.figures
        else:
            rest = [self.count, self.times, *self.figures]
        for line in packed(rest, width):
            yield Text(line, no_wrap=True, overflow="ellipsis")


class _Lines:
    """Without a terminal: a line now and then."""

    def __init__(self, state: _State, seconds: float) -> None:
        self.state, self.seconds = state, seconds
        self._told, self._told_at = state.done, time.monotonic()

    def update(self, advance: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        self.state.update(advance, metrics)
        if time.monotonic() - self._told_at >= self.seconds:
            self.tell()

    def tell(self) -> None:
        """Print what was not printed yet."""
        if self.state.done != self._told:
            self._told, self._told_at = self.state.done, time.monotonic()
            print(" · ".join([self.state.count, self.state.times, *self.state.figures]), file=sys.stderr, flush=True)


def figures(logged: Mapping[str, float | None]) -> list[str]:
    """The most telling numbers of a step: accuracy and progress per phase of its rollouts (or the loss, without any),
    sampled tokens per second, seconds by part. What is not finite (TRL hands on None) is left out."""
    metrics = {name: value for name, value in logged.items() if value is not None and math.isfinite(value)}
    found = []
    if "outcome" in metrics:
        found.append(f"accuracy {metrics['outcome']:.3f}")
    elif "loss" in metrics:
        found.append(f"loss {metrics['loss']:.4g}")
    phases = {name.removeprefix(PHASE): value for name, value in metrics.items() if name.startswith(PHASE)}
    told = [f"{phase} {value:+.2f}" for phase, value in phases.items()]
    if told:  # an item each, so that they can be packed where it is narrow
        found += [f"progress {told[0]}", *told[1:MOST_PHASES], *(["…"] if len(told) > MOST_PHASES else [])]
    if "tokens/step_sampled" in metrics and metrics.get("time/step"):
        found.append(f"{metrics['tokens/step_sampled'] / metrics['time/step']:,.0f} tokens/s")
    times = {shown: metrics[f"time/{part}"] for part, shown in PARTS.items() if f"time/{part}" in metrics}
    return found + [f"{shown} {seconds:.1f} s" for shown, seconds in times.items()]


def packed(items: list[str], width: int) -> list[str]:
    """The items one behind the other, in lines of at most `width` columns where that is possible."""
    lines: list[str] = []
    for item in items:
        if lines and cell_len(lines[-1]) + 3 + cell_len(item) <= width:
            lines[-1] += f" · {item}"
        else:
            lines.append(item)
    return lines


@contextmanager
def _logs_above_the_panel() -> Iterator[None]:
    """Log handlers keep the stderr that they were made with, and would write into the panel: give them today's."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    moved: list[tuple[logging.StreamHandler[Any], Any]] = []
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__:
            moved.append((handler, handler.setStream(sys.stderr)))
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
