"""Running `vllm serve`s of one model, asked over HTTP for chunks of jobs (see `endpoint`): rows shared over them, a
server that dies left out.

Jobs keep no state on a server but its prefix cache. So any server may take any job, lost answers are asked for again,
and a row goes back to the server that has read most of it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.json_client import JsonClient, ServerGone
from backtrack_mrt.policy.vllm.jobs import PATH, WEIGHTS_PATH, Drawn, Job, as_json
from backtrack_mrt.types import TokenIds

T = TypeVar("T")
FIELD = "engine.server"
START = "Start it with `backtrack-mrt serve` (docs/engines.md)."
_MODELS = "/v1/models"
_CACHE = re.compile(r'^vllm:cache_config_info\{.*?\bkv_cache_size_tokens="(\d+)"', re.MULTILINE)  # of each engine
SAME = f"Serve the model of model.name_or_path in the type of model.dtype. {START}"
WAITS = (1.0, 5.0)  # seconds before a server is asked again that gave no answer
_BLOCK = 32  # tokens by which a known history is told
_MOST = 1.25  # of an even share of the rows, that the server gets which has read most of them


class Server(JsonClient):
    """A running `vllm serve`, of which `max_rows` jobs at a time are asked. Every failure is a UserError. cache_tokens:
    whose keys and values it has room for (None: it does not say)."""

    def __init__(self, url: str, max_rows: int) -> None:
        super().__init__(url, field=FIELD, key="VLLM_API_KEY", remedy=START)
        self._max_rows = max_rows
        with self.understood(_MODELS):
            served = [row for row in self._models() if not row.get("parent")]
            self.model, self.context_length = str(served[0]["id"]), int(served[0]["max_model_len"])
        try:
            rooms = [int(room) for room in _CACHE.findall(self.text("/metrics"))]
        except UserError:  # vLLM was started without them
            rooms = []
        self.cache_tokens = sum(rooms) or None

    def complete(self, jobs: Sequence[Job], model: str | None = None) -> list[Drawn]:
        """The answers in order; model: the name of what was loaded (None: the base)."""
        body = {"model": model or self.model, "max_rows": self._max_rows, "jobs": as_json(jobs)}
        try:
            answers = self.ask("POST", PATH, body)
        except ServerGone:
            raise
        except UserError as refused:
            if model is None or self._knows(model):
                raise
            raise ServerGone(FIELD, self.url, f"was started anew: it has no {model}", START) from refused
        with self.understood(PATH):
            return [_drawn(*both) for both in zip(jobs, answers, strict=True)]

    def load(self, name: str, path: Path, *, whole: bool = False) -> None:
        """Take an adapter, or all weights of the model, which are asked for by that name from now on. It may be there
        already: an answer may have been lost, two addresses may be one server's."""
        remedy = f"{START} It must see the same directory at engine.adapters."
        if whole:
            self.ask("POST", WEIGHTS_PATH, {"name": name, "path": str(path)}, remedy)
            return
        with self._unless(lambda: self._knows(name)):
            self.ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, remedy)

    def unload(self, name: str) -> None:
        """Drop an adapter, if it is there: a server that was started anew has none."""
        with self._unless(lambda: not self._knows(name)):
            self.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    @contextmanager
    def _unless(self, done: Callable[[], bool]) -> Iterator[None]:
        """What is asked for within the block may be refused where it is done already."""
        try:
            yield
        except ServerGone:
            raise
        except UserError:
            if not done():
                raise

    def _knows(self, model: str) -> bool:
        """Whether there is a model or an adapter of that name."""
        with self.understood(_MODELS):
            return any(row["id"] == model for row in self._models())

    def _models(self) -> list[dict[str, Any]]:
        """What the server says of its models; whoever reads it must `understand` it."""
        rows: list[dict[str, Any]] = self.ask("GET", _MODELS)["data"]
        return rows


class Servers:
    """The servers at `urls`. Raises UserError for one that cannot be reached now; later such a one is left out with a
    message, and only the last one's failure is raised. max_rows: jobs under way at once on each."""

    def __init__(self, urls: Sequence[str], max_rows: int) -> None:
        self.all = [Server(url, max_rows) for url in urls]
        self.alive = list(self.all)
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(len(urls))
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
        for _ in self._threads.map(partial(self._asked, work), list(self.alive)):
            pass

    def complete(self, jobs: Sequence[Job], model: str | None) -> list[Drawn]:
        """The answers in order; model: the name of what was loaded (None: the base). A server is asked once for all its
        jobs, and those of one that is left out are shared anew."""
        answers = dict[int, Drawn]()
        while waiting := {number: job for number, job in enumerate(jobs) if number not in answers}:
            shares = self._shared(waiting)
            asked = [partial(Server.complete, jobs=list(share.values()), model=model) for share in shares.values()]
            for server, drawn in zip(shares, self._threads.map(self._asked, asked, shares), strict=True):
                if drawn is not None:
                    answers |= zip(shares[server], drawn, strict=True)
                    for job, answer in zip(shares[server].values(), drawn, strict=True):
                        self._remember(job.prompt_ids + answer.token_ids, server)
        return [answers[number] for number in range(len(jobs))]

    def forget(self) -> None:
        """No history is known any more."""
        self._homes.clear()

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()

    def _shared(self, jobs: Mapping[int, Job]) -> dict[Server, dict[int, Job]]:
        """Each server's jobs: a job is for the one that knows most of its history, unless that one has more than its
        share."""
        shares: dict[Server, dict[int, Job]] = {server: {} for server in self.alive}
        most = _MOST * len(jobs) / len(shares)
        for number, job in jobs.items():
            home = next((self._homes[b] for b in reversed(_blocks(job.prompt_ids)) if b in self._homes), None)
            if home not in shares or len(shares[home]) >= most:
                home = min(shares, key=lambda server: len(shares[server]))
            shares[home][number] = job
            self._remember(job.prompt_ids, home)
        return {server: share for server, share in shares.items() if share}

    def _remember(self, ids: TokenIds, home: Server) -> None:
        """A history is there, if it is not somewhere already."""
        for block in _blocks(ids):
            self._homes.setdefault(block, home)

    def _asked(self, work: Callable[[Server], T], server: Server) -> T | None:
        """What it gives; None from a server that is gone, and left out."""
        try:
            return _patiently(partial(work, server))
        except ServerGone as gone:
            self._leave_out(server, gone)
            return None

    def _leave_out(self, server: Server, gone: ServerGone) -> None:
        with self._lock:
            if server not in self.alive:
                return  # another thread was faster
            if len(self.alive) == 1:
                raise gone
            self.alive.remove(server)
            self._homes = {block: home for block, home in self._homes.items() if home is not server}
            print(f"{server.url} {gone.reason}: going on with {len(self.alive)} servers", file=sys.stderr, flush=True)


def _drawn(job: Job, row: Mapping[str, Any]) -> Drawn:
    """The answer to `job`, as it came. Raises what `JsonClient.understood` tells for one that cannot be its answer."""
    ids, logprobs = tuple(map(int, row["token_ids"])), tuple(map(float, row["logprobs"]))
    if not 0 < len(ids) == len(logprobs) <= job.max_new_tokens:
        asked = f"{job.max_new_tokens} were asked for"
        raise ValueError(f"{len(ids)} tokens with {len(logprobs)} logprobs, where up to {asked}")
    return Drawn(ids, logprobs, int(row["cached"]))


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
