"""The process that runs math-verify: a guard that never reads an answer, and a forked child that does.

Started by exec as a file, so that neither torch nor the package is imported. The guard imports math-verify once,
while it has one thread, and forks a child for the grading; a child that runs over its limits is killed and the next
one is a fork away (milliseconds, against the third of a second of an import). Limits of one request:

- CPU seconds: an interval timer whose signal is left at its default action, so the kernel ends the child even inside
  a big-number power, which no Python handler and no exception can interrupt;
- wall seconds: the guard kills the child;
- address space: RLIMIT_AS, a MemoryError inside the child; macOS has no such limit. Libraries read any error as "not
  equal" or "no formula", so what a child says that came near its limit holds only where it says "right".

One JSON line in, one out: {"pairs": [[gold, answer], …]} or {"match": [golds, answers]}, with "rel_tol" or null,
answered by {"verdict": …, "why": …}. At the end of the input, also in the middle of a request, both processes end:
there are no orphans. A child whose guard was killed ends with it on Linux; elsewhere by end of input, or by its timer.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import resource
import select
import signal
from pathlib import Path
from typing import Any

_MEBIBYTE = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DIED = "the grading process died twice"


def main() -> None:
    """Serve requests from standard input until it ends."""
    parser = argparse.ArgumentParser(description="Grade pairs with math-verify; JSON lines in and out.")
    parser.add_argument("--compare", choices=["symbolic", "bare"], required=True, help="the file that compares")
    parser.add_argument("--cpu-s", type=float, required=True, help="CPU seconds one request may take")
    parser.add_argument("--wall-s", type=float, required=True, help="wall seconds one request may take")
    parser.add_argument("--memory-mb", type=int, required=True, help="address space of the child, MiB")
    parser.add_argument("--recycle", type=int, required=True, help="requests after which the child is replaced")
    limits = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the training process, which closes our input
        signal.signal(number, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    try:
        symbolic = _load_neighbour(f"{limits.compare}.py")
        symbolic.warm_up()
    except Exception as error:
        _write(replies, {"failed": f"{type(error).__name__}: {error}"})
        return
    gc.collect()
    gc.freeze()  # the children share these pages
    guard = _Guard(limits, symbolic)
    if reason := guard.trial():
        _write(replies, {"failed": reason})
        return
    _write(replies, {"ready": os.getpid()})
    guard.serve(replies)


class _Guard:
    """Relays requests to the child, kills it when it runs over, and forks the next one."""

    def __init__(self, limits: argparse.Namespace, symbolic: Any) -> None:
        self.limits, self.symbolic = limits, symbolic
        self.child = self.served = 0
        self.to_child = self.from_child = -1

    def trial(self) -> str | None:
        """Why no child can grade on this system, None if one has. (That it may run over its limits is no reason.)"""
        try:
            why = self.answer(b'{"pairs": [["1", "1"]], "rel_tol": null}\n')["why"]
        except OSError as error:
            return f"no process can be forked: {error}"
        self.served = 0
        return _DIED if why == _DIED else None

    def serve(self, replies: int) -> None:
        pending = b""
        while True:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                break
            pending += chunk
            while b"\n" in pending:
                line, pending = pending.split(b"\n", 1)
                _write(replies, self.answer(line + b"\n"))
        self.end_child()

    def answer(self, request: bytes) -> dict[str, str]:
        if self.served >= self.limits.recycle:
            self.end_child()
        for _ in range(2):  # a child that somebody else killed gets a second chance
            if not self.child:
                self.fork()
            self.served += 1
            reply = self.ask(request)
            if reply is not None:
                return reply
        return {"verdict": "timeout", "why": _DIED}

    def ask(self, request: bytes) -> dict[str, str] | None:
        """One request to the child; None if it died of something else than its limits."""
        poll = select.poll()
        poll.register(self.from_child, select.POLLIN)
        poll.register(0, select.POLLIN)
        try:
            os.write(self.to_child, request)  # shorter than a pipe holds
        except BrokenPipeError:
            self.end_child()
            return None
        events = poll.poll(self.limits.wall_s * 1000)
        if not events:
            self.end_child()
            return {"verdict": "timeout", "why": "wall"}
        if all(descriptor == 0 for descriptor, _ in events):  # nobody asks before the last reply: the asker is gone
            self.end_child()
            os._exit(0)
        reply = os.read(self.from_child, 1 << 12)
        if reply.endswith(b"\n"):
            decoded: dict[str, str] = json.loads(reply)
            return decoded
        status = self.end_child()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
            return {"verdict": "timeout", "why": "cpu"}
        return None

    def fork(self) -> None:
        request_out, self.to_child = os.pipe()
        self.from_child, reply_in = os.pipe()
        self.served = 0
        self.child = os.fork()
        if self.child:
            os.close(request_out)
            os.close(reply_in)
            return
        os.close(self.to_child)
        os.close(self.from_child)
        os.close(0)
        _run_child(self.symbolic, self.limits, request_out, reply_in)

    def end_child(self) -> int:
        """Kill the child if there is one, collect it, and return its exit status."""
        if not self.child:
            return 0
        os.kill(self.child, signal.SIGKILL)
        _, status = os.waitpid(self.child, 0)
        os.close(self.to_child)
        os.close(self.from_child)
        self.child = 0
        return status


def _run_child(symbolic: Any, limits: argparse.Namespace, requests: int, replies: int) -> None:
    """Grade until the requests end; never returns."""
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    space = limits.memory_mb * _MEBIBYTE
    with contextlib.suppress(ValueError):  # macOS knows no such limit; some systems have set a lower one
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    code = 0
    try:
        with os.fdopen(requests, "rb") as lines:
            for line in lines:
                request = json.loads(line)
                signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
                try:
                    reply = {"verdict": symbolic.grade(request), "why": ""}
                except symbolic.SHORT_OF_MEMORY:
                    reply = {"verdict": "timeout", "why": "memory"}
                signal.setitimer(signal.ITIMER_PROF, 0.0)
                # What grows until it is refused room does so by doubling at most, so it has come to half of the limit.
                if reply["verdict"] != "right" and _peak() > space / 2:
                    reply = {"verdict": "timeout", "why": "memory"}
                _write(replies, reply)
                if reply["why"] == "memory":
                    break
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def _peak() -> int:
    """The most address space this process has had, in bytes; 0 where the system (other than Linux) does not tell."""
    try:
        return int(Path("/proc/self/status").read_text().partition("VmPeak:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


def _load_neighbour(name: str) -> Any:
    """Import a file of this directory without the package around it."""
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), Path(__file__).with_name(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write(descriptor: int, message: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
