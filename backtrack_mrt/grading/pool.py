"""A few worker processes, started when first needed, that any thread may ask: JSON lines in and out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backtrack_mrt.errors import UserError
from backtrack_mrt.grading.verdict import Verdict

START_LIMIT_S = 60.0  # importing math-verify takes 0.4 s on an idle machine and much longer on a cold or busy one
MAX_FAILED_STARTS = 5  # in a row, of a process that has run before; then it is not an accident
_MARGIN_S = 0.3  # what the caller allows the guard, beyond its own limit, to kill its child and say so


@dataclass(frozen=True)
class Limits:
    """What one question may cost, and how often the grading process is replaced."""

    cpu_s: float = 1.0  # CPU seconds, enforced by the kernel
    # Wall seconds until the child is killed; the caller waits 0.3 s longer at most. Far more than the CPU seconds: on a
    # busy machine an honest answer waits for a core, which must not cost it its verdict.
    wall_s: float = 5.0
    memory_mb: int = 1024  # address space of the child, MiB
    recycle: int = 500  # questions after which the child is replaced, so that its caches cannot grow


@dataclass(frozen=True)
class Reply:
    """A verdict, and whether the same question would get it again (not so after a wall-clock timeout). share: of the
    parts of the question that were right, where it has parts."""

    verdict: Verdict
    lasting: bool
    share: float = 0.0


@dataclass(frozen=True)
class Program:
    """How a guard process is started. wall_s: after which it says itself that a question has timed out. remedy: what
    to try where it does not start. environment: all that it has."""

    command: Sequence[str]
    wall_s: float
    remedy: str
    environment: Mapping[str, str] = field(default_factory=lambda: {**os.environ, "PYTHONHASHSEED": "0"})


def comparing(limits: Limits, compare: Literal["symbolic", "bare"] = "symbolic") -> Program:
    """The guard of worker.py. compare: the file beside it that compares, `symbolic` (the project's) or `bare`
    (math-verify as it comes)."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))]
    command += ["--compare", compare, "--cpu-s", str(limits.cpu_s), "--wall-s", str(limits.wall_s)]
    command += ["--memory-mb", str(limits.memory_mb), "--recycle", str(limits.recycle)]
    return Program(command, limits.wall_s, f"Check that `{sys.executable} -c 'import math_verify'` works.")


class Worker:
    """One guard process and its pipes. Used by one thread at a time."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that may use the pipes: a forked copy of this one must not
        self._started_at = 0.0
        self._ready = False  # the present process has said hello
        self._failed_starts = 0  # in a row
        self._was_ready = False  # one has, since the last `close`

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """Put one question, within the limits, a restart of the process included.

        Only the first start comes on top of them: it waits up to `START_LIMIT_S`. A restart that takes longer than
        the limits (a busy machine) costs this question its verdict and goes on for the next one.
        """
        line = json.dumps(request).encode() + b"\n"
        if self._process is not None and self._owner != os.getpid():
            self.close()
        if not self._was_ready:
            self._await_ready(START_LIMIT_S)
        deadline = time.monotonic() + self._program.wall_s + _MARGIN_S
        try:
            for _ in range(2):  # a guard that somebody else killed is replaced once
                if not self._await_ready(deadline - time.monotonic()):
                    break
                reply = self._exchange(line, deadline)
                if reply is not None:
                    return reply
                self._end()
        except BaseException:  # such as Ctrl-C: the reply that is still to come must not answer the next question
            self.close()
            raise
        return Reply(Verdict.TIMEOUT, lasting=False)

    def close(self) -> None:
        """End the process; the next question waits for a new one as the first did."""
        self._end()
        self._was_ready = False

    def _end(self) -> None:
        # Closing its input would do; killing it does not wait for the current question.
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._owner == os.getpid():
            process.kill()
            process.wait()

    def _exchange(self, line: bytes, deadline: float) -> Reply | None:
        """One line out, one line in; None if the guard has died."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except OSError:
            return None
        reply = _read_line(process, deadline - time.monotonic())
        if reply is None:  # the guard itself hangs
            self._end()
            self._start()  # loads while the caller goes on
            return Reply(Verdict.TIMEOUT, lasting=False)
        if not reply:
            return None
        message = json.loads(reply)
        lasting = message["why"] in ("", "cpu", "memory")
        return Reply(Verdict(message["verdict"]), lasting, message.get("share", 0.0))

    def _await_ready(self, limit_s: float) -> bool:
        """Whether a process is ready within the limit; starts one if there is none, and leaves a slow one starting."""
        if self._process is None:
            self._start()
        if self._ready:
            return True
        assert self._process is not None
        hello = _read_line(self._process, limit_s)
        if hello is None and time.monotonic() - self._started_at < START_LIMIT_S:
            return False
        message = json.loads(hello) if hello else {}
        if "ready" not in message:
            self._failed_starts += 1
            if hello == b"" and self._was_ready and self._failed_starts < MAX_FAILED_STARTS:
                self._end()  # killed while it started; the next question tries again
                return False
            self.close()
            reason = message.get("failed", "it ended at once" if hello == b"" else f"no answer in {START_LIMIT_S} s")
            raise UserError("grading worker", sys.executable, f"does not start: {reason}", self._program.remedy)
        self._ready = self._was_ready = True
        self._failed_starts = 0
        return True

    def _start(self) -> None:
        # Its own session: Ctrl-C goes to the training process only. A fixed hash seed: the same verdicts in each run.
        self._process = subprocess.Popen(
            self._program.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=dict(self._program.environment),
        )
        self._owner, self._started_at, self._ready = os.getpid(), time.monotonic(), False


def _read_line(process: subprocess.Popen[bytes], limit_s: float) -> bytes | None:
    """The next line of the process, b"" if its output has ended, None if nothing complete came in time."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    deadline = time.monotonic() + limit_s
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        chunk = os.read(descriptor, 1 << 12)
        if not chunk:
            return b""
        line += chunk
    return line


class WorkerPool:
    """``size`` workers; a thread that finds all busy waits for one."""

    def __init__(self, size: int, program: Program) -> None:
        self.size = size
        self._workers = [Worker(program) for _ in range(size)]
        self._closing = threading.Lock()  # two half-finished calls of `close` would wait for each other's workers
        # Last in, first out: as long as one worker keeps up, the others need no process.
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """`Worker.ask` with the next idle worker."""
        worker = self._idle.get()
        try:
            return worker.ask(request)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Wait for the workers in use (their limits bound that) and end all processes. The pool stays usable."""
        with self._closing:
            taken = [self._idle.get() for _ in self._workers]
            for worker in taken:
                worker.close()
                self._idle.put(worker)
