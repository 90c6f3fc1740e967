"""Stopping on SIGTERM and SIGINT (Ctrl-C) without losing anything.

The first signal is remembered. The run ends at the next safe point, where no step is half done: it saves a checkpoint
of the last whole step and exits with code 75 (SIGTERM: "try again later", sysexits.h) or 130 (SIGINT). A second signal
leaves at once. A single process stops between turns and between micro-batches; several stop between updates, together.
Of several runs, one after the other, none begins once somebody has asked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from backtrack_mrt.errors import Interrupted
from backtrack_mrt.runs import processes

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
_asked: list[int] = []  # the exit code that the first signal asks for; empty while nobody asked


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block both signals wait for a safe point; within another such block, for one of that. Only the main
    thread can arrange it; in another one nothing changes."""
    inner = signal.getsignal(signal.SIGTERM) is _on_signal
    if inner or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        with handled_by(_on_signal):
            yield
    finally:
        _asked.clear()


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block both signals go to `handler`, afterwards where they went before. For the main thread."""
    before = {number: signal.signal(number, handler) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def safe_point() -> None:
    """Raises Interrupted here if somebody asked the program to stop and there are no other processes to tell. What
    another thread is at, is waited for."""
    if _asked and processes.count() == 1 and threading.current_thread() is threading.main_thread():
        raise Interrupted(_asked[0])


def common_safe_point() -> None:
    """The same for several processes: all of them call it, and all stop if one was asked to."""
    codes = [code for asked in processes.gathered([list(_asked)]) for code in asked]
    if codes:
        raise Interrupted(codes[0])


def _on_signal(number: int, frame: FrameType | None) -> None:
    code = EXIT_CODES[signal.Signals(number)]
    if _asked:
        os._exit(code)
    _asked.append(code)
    if not processes.is_main():
        return
    with suppress(OSError, ValueError, AttributeError):  # notebooks and daemons have no such file
        os.write(sys.stderr.fileno(), b"\nstopping at the next safe point; a second signal stops at once\n")
