"""Progress of a loop: a bar on a terminal, plain lines elsewhere. On stderr: stdout is for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from backtrack_mrt.processes import is_main


class Update(Protocol):
    """What `progress` hands to the loop."""

    def update(self, advance: int = 1, **metrics: float) -> None:
        """`advance` more units are done; the metrics are shown behind the bar."""


@contextmanager
def progress(total: int, description: str, seconds: float = 10.0) -> Iterator[Update]:
    """Shows how far `total` units of work are. Without a terminal: a line at most every `seconds`, and the last one. Of
    several processes only the main one shows its own."""
    if not is_main():
        yield _Silent()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total, description, seconds)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"), console=console) as bar:
        yield _Bar(bar, total, description)


class _Silent:
    def update(self, advance: int = 1, **metrics: float) -> None: ...


class _Bar:
    def __init__(self, bar: Progress, total: int, description: str) -> None:
        self._bar, self._task = bar, bar.add_task(description, total=total, metrics="")

    def update(self, advance: int = 1, **metrics: float) -> None:
        self._bar.update(self._task, advance=advance, metrics=_shown(metrics))


class _Lines:
    def __init__(self, total: int, description: str, seconds: float) -> None:
        self.total, self.description, self.seconds, self.done = total, description, seconds, 0
        self._start = self._told = time.monotonic()

    def update(self, advance: int = 1, **metrics: float) -> None:
        self.done += advance
        now = time.monotonic()
        if self.done >= self.total or now - self._told >= self.seconds:
            self._told = now
            line = f"{self.description} {self.done}/{self.total} {now - self._start:.0f} s {_shown(metrics)}"
            print(line.rstrip(), file=sys.stderr, flush=True)


def _shown(metrics: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.3g}" for name, value in metrics.items())
