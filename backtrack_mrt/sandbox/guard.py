"""The process that runs answers against tests: a guard, which reads both, and two kinds of children.

Started by exec with an empty environment. Before it has read anything it forks a nursery, which is only ever told
answers: the processes in which answers run are forked there, so no test was ever in their memory. The process in which
tests run is forked by the guard. Both are confined (`confinement`) before they run a line that they were given, and
both are killed when the tests are done or their time is up: nothing outlives a request.

One JSON line in, one out: {"answer": …, "tests": …}, answered by {"verdict": …, "share": …, "why": …}. At the end of
the input, also in the middle of a request, all processes end.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
from typing import Any

from backtrack_mrt.sandbox.answer_side import Serving
from backtrack_mrt.sandbox.confinement import confine, dies_with_its_parent
from backtrack_mrt.sandbox.test_side import Link, run_tests
from backtrack_mrt.sandbox.values import receive, send

MODULES = (
    "array base64 bisect calendar cmath collections collections.abc contextlib contextvars copy csv dataclasses "
    "datetime _strptime decimal difflib enum fractions functools graphlib hashlib heapq html io itertools json "
    "keyword locale logging math numbers operator os pickle pprint queue random re secrets shlex statistics string "
    "struct sys textwrap threading time timeit traceback types typing unicodedata unittest uuid warnings zlib zoneinfo"
)


def main() -> None:
    """Serve requests from standard input until it ends."""
    parser = argparse.ArgumentParser(description="Run answers against unit tests; JSON lines in and out.")
    parser.add_argument("--cpu-s", type=int, required=True, help="CPU seconds of an answer, and of its tests")
    parser.add_argument("--wall-s", type=float, required=True, help="wall seconds of one request")
    parser.add_argument("--memory-mb", type=int, required=True, help="address space of each process, MiB")
    parser.add_argument("--modules", nargs="*", default=[], help="modules beside the standard ones")
    limits = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the training process, which closes our input
        signal.signal(number, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # what a module prints must not be taken for a reply
    try:
        for name in (*MODULES.split(), *limits.modules):
            importlib.import_module(name)
    except ImportError as error:
        _write(replies, {"failed": str(error)})
        return
    gc.collect()
    gc.freeze()
    guard, nursery = socket.socketpair()
    if os.fork() == 0:
        guard.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the requests; 0 must not be free for a pipe
        os.close(replies)
        _nursery(nursery, limits)
    nursery.close()
    _write(replies, {"ready": os.getpid()})
    pending = b""
    while chunk := os.read(0, 1 << 16):
        pending += chunk
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            _write(replies, _answered(json.loads(line), guard, limits))


def _answered(request: dict[str, str], nursery: socket.socket, limits: argparse.Namespace) -> dict[str, Any]:
    """The verdict on one request."""
    calls_out, calls_in = os.pipe()
    results_out, results_in = os.pipe()
    verdict_out, verdict_in = os.pipe()
    socket.send_fds(nursery, [b"run"], [calls_out, results_in])
    os.close(calls_out)
    os.close(results_in)
    with contextlib.suppress(OSError):  # an answer that has ended already
        send(calls_in, request["answer"])
    tester = os.fork()
    if tester == 0:
        nursery.close()
        _test(request["tests"], calls_in, results_out, verdict_in, limits)
    for descriptor in (calls_in, results_out, verdict_in):
        os.close(descriptor)
    poll = select.poll()
    poll.register(verdict_out, select.POLLIN)
    poll.register(0, select.POLLIN)
    events = poll.poll(limits.wall_s * 1000)
    told = os.read(verdict_out, 1 << 12) if any(descriptor == verdict_out for descriptor, _ in events) else b""
    os.close(verdict_out)
    os.kill(tester, signal.SIGKILL)
    _, tester_status = os.waitpid(tester, 0)
    nursery.sendall(b"end")
    status = int.from_bytes(nursery.recv(4), "big")  # 0 bytes: the nursery is gone, and so is everything else
    if not events:
        return {"verdict": "timeout", "share": 0.0, "why": "wall"}
    if not told:
        if all(descriptor == 0 for descriptor, _ in events):  # nobody asks before the last reply: the asker is gone
            os._exit(0)
        ran_out = _ran_out(tester_status)
        return {"verdict": "timeout" if ran_out else "wrong", "share": 0.0, "why": "cpu" if ran_out else "died"}
    tally = json.loads(told)
    if not tally["read"]:
        return {"verdict": "unparsable", "share": 0.0, "why": "no Python"}
    share = tally["passed"] / tally["total"] if tally["total"] else 0.0
    if share < 1 and _ran_out(status):
        return {"verdict": "timeout", "share": share, "why": "cpu"}
    return {"verdict": "right" if share == 1 else "wrong", "share": share, "why": ""}


def _ran_out(status: int) -> bool:
    """Whether a process was ended by its limit of CPU seconds."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU


def _test(tests: str, calls: int, results: int, verdict: int, limits: argparse.Namespace) -> None:
    """Run the tests in a confined process; never returns."""
    try:
        confine(limits.cpu_s, limits.memory_mb, (calls, results, verdict))
        tally = run_tests(tests, Link(calls, results))
        _write(verdict, vars(tally))
    finally:
        os._exit(1)


def _nursery(guard: socket.socket, limits: argparse.Namespace) -> None:
    """Start an answer's process for every pair of descriptors, and end it when told; never returns."""
    dies_with_its_parent()
    try:
        while True:
            word, descriptors, _, _ = socket.recv_fds(guard, 8, 2)
            if word != b"run":
                break
            calls, results = descriptors
            child = os.fork()
            if child == 0:
                guard.close()
                _run_answer(calls, results, limits)
            os.close(calls)
            os.close(results)
            if guard.recv(3) != b"end":
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            guard.sendall(status.to_bytes(4, "big"))
    finally:
        os._exit(0)


def _run_answer(calls: int, results: int, limits: argparse.Namespace) -> None:
    """Run an answer in a confined process; never returns."""
    try:
        confine(limits.cpu_s, limits.memory_mb, (calls, results))
        Serving(calls, results).run(receive(calls))
    finally:
        os._exit(0)


def _write(descriptor: int, message: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")
