"""Several vLLM servers of one model: rows shared over them, a server that dies left out.

Jobs keep no state on a server but its prefix cache. So any server may take any job, a lost answer is asked for again,
and a row goes back to the server that has read most of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import TypeVar

from backtrack_mrt.policy.json_client import ServerGone
from backtrack_mrt.policy.vllm.jobs import Drawn, Job
from backtrack_mrt.policy.vllm.server import Server
from backtrack_mrt.types import TokenIds

T = TypeVar("T")
WAITS = (1.0, 5.0)  # seconds before a server is asked again that gave no answer
_BLOCK = 32  # tokens by which a known history is told
_MOST = 1.25  # of an even share of the rows, that the server gets which has read most of them


class Servers:
    """The servers at `urls`. Raises UserError for one that cannot be reached now; later such a one is left out with a
    message, and only the last one's failure is raised. threads: jobs under way at once."""

    def __init__(self, urls: Sequence[str], threads: int = 1) -> None:
        self.all = [Server(url) for url in urls]
        self.alive = list(self.all)
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(threads)
        self._homes: dict[int, Server] = {}  # of histories, by a hash of their blocks of tokens

    @property
    def context_length(self) -> int:
        """Of the shortest."""
        return min(server.context_length for server in self.all)

    @property
    def cache_tokens(self) -> int | None:
        """Of all that are alive (None: one of them does not say)."""
        rooms = [server.cache_tokens for server in self.alive]
        return None if None in rooms else sum(room for room in rooms if room)

    def on_each(self, work: Callable[[Server], object]) -> None:
        """Do it on every server that is alive, at the same time."""

        def patiently(server: Server) -> None:
            try:
                _patiently(partial(work, server))
            except ServerGone as gone:
                self._leave_out(server, gone)

        for _ in self._threads.map(patiently, list(self.alive)):
            pass

    def complete(self, jobs: Sequence[Job], model: str | None) -> list[Drawn]:
        """The answers in order; model: an adapter's name (None: the base)."""
        homes = self._shared(jobs)

        def answer(job: Job, home: Server) -> Drawn:
            while True:
                server = home if home in self.alive else self.alive[hash(job.prompt_ids) % len(self.alive)]
                try:
                    return _patiently(partial(server.complete, model or server.model, job))
                except ServerGone as gone:
                    self._leave_out(server, gone)

        answers = list(self._threads.map(answer, jobs, homes))
        for job, drawn, home in zip(jobs, answers, homes, strict=True):
            for block in _blocks(job.prompt_ids + drawn.token_ids):
                self._homes.setdefault(block, home)
        return answers

    def forget(self) -> None:
        """No history is known any more."""
        self._homes.clear()

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()

    def _shared(self, jobs: Sequence[Job]) -> list[Server]:
        """A server for each job: the one that knows most of its history, unless that one has more than its share."""
        alive = list(self.alive)
        load, most = dict.fromkeys(alive, 0), _MOST * len(jobs) / len(alive)
        chosen = []
        for job in jobs:
            known = next((self._homes[b] for b in reversed(_blocks(job.prompt_ids)) if b in self._homes), None)
            home = known if known is not None and load.get(known, most) < most else min(alive, key=load.__getitem__)
            load[home] += 1
            chosen.append(home)
            for block in _blocks(job.prompt_ids):
                self._homes.setdefault(block, home)
        return chosen

    def _leave_out(self, server: Server, gone: ServerGone) -> None:
        with self._lock:
            if server not in self.alive:
                return  # another thread was faster
            if len(self.alive) == 1:
                raise gone
            self.alive.remove(server)
            print(f"{server.url} {gone.reason}: going on with {len(self.alive)} servers", file=sys.stderr, flush=True)


def _patiently(ask: Callable[[], T]) -> T:
    """The answer, asked for again after a while where there is none."""
    for wait in WAITS:
        try:
            return ask()
        except ServerGone:
            time.sleep(wait)
    return ask()


def _blocks(ids: TokenIds) -> list[int]:
    """A hash of every prefix of whole blocks; of all tokens where there is no whole one."""
    hashes = list[int]()
    for end in range(_BLOCK, len(ids) + 1, _BLOCK):
        hashes.append(hash((hashes[-1] if hashes else 0, ids[end - _BLOCK : end])))
    return hashes or [hash(ids)]
