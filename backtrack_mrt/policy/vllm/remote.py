"""The engine on vLLM servers. Needs no vLLM here. A server must take chunks of jobs, draw its tokens as they say, and
exchange adapters while it runs: `backtrack-mrt serve` starts one. That it does, and that its weights are those that are
trained, is checked at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from peft import PeftModel
from torch import Tensor

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.dimensions import context_length
from backtrack_mrt.policy.hf.arithmetic import step_at
from backtrack_mrt.policy.hf.lora import WeightsFolder
from backtrack_mrt.policy.json_client import BadRequest
from backtrack_mrt.policy.vllm.jobs import Drawn, Job, JobEngine, forced, sampled
from backtrack_mrt.policy.vllm.servers import FIELD, SAME, START, Server, Servers
from backtrack_mrt.runs import processes
from backtrack_mrt.types import Sampling, TokenIds

_PROBE, _PROBE_TEMPERATURE = 24, 0.5  # tokens; not 1, to see whether logprobs are at the temperature
_LEAST_TOLERANCE = 0.01  # nats, mean
_ROUNDINGS = 2  # steps between neighbouring logits that kernels may differ by, in the mean


class ServerEngine(JobEngine):
    """Asks `servers`, which serve the base of `model`; where that has no adapter, they are given all its weights.

    adapters: directory in which the servers find what is written here (None: among the temporary files, for servers on
    this machine). sent: whose adapter or weights are sent (None: those of `model`). Raises UserError for a server
    with other weights or without the settings it needs.
    """

    def __init__(
        self,
        model: Any,
        servers: Servers,
        *,
        max_rows: int,
        adapters: Path | None = None,
        sent: Any = None,
    ) -> None:
        super().__init__(min(servers.context_length, context_length(model.config)), max_rows)
        self._servers, self._model = servers, model
        self._folder, self._whole = WeightsFolder(sent or model, adapters), not isinstance(model, PeftModel)
        # Processes with the same weights call them the same, and one of them hands them over for all.
        (self._run_name,) = processes.gathered([uuid4().hex[:8]] if processes.is_main() else [])
        self._names: list[str] = []  # of the adapters that may be asked for, the newest last
        self._loaded: list[str] = []  # by this process
        if self._whole:  # what a server has may be another run's
            self._hand_over()
        for server in servers.all:
            self._check_weights(server)
        if not self._whole:
            self._hand_over()

    @property
    def cache_tokens(self) -> int | None:
        """See `Engine.cache_tokens`. Processes that train together share the servers."""
        room = self._servers.cache_tokens
        return None if room is None else room // processes.count()

    def close(self) -> None:
        """See `Engine.close`."""
        for name in list(self._loaded):
            self._unload(name)
        self._servers.close()

    def _run(self, jobs: Sequence[Job]) -> list[Drawn]:
        return self._servers.complete(jobs, None if self._in_reference else self._names[-1])

    def _hand_over(self) -> None:
        name = f"backtrack-mrt-{self._run_name}-{self._folder.digest()}"
        if self._whole:  # of which a server has one set: until all processes are here one may draw by it
            (name,) = processes.gathered([name] if processes.is_main() else [])
        if self._names[-1:] == [name]:
            return
        # Another process may still draw by the one before, but not by one before that: there was an update of all.
        self._names = [*self._names[-1:] * (processes.count() > 1 and not self._whole), name]
        if self._whole:
            if processes.is_main():  # the only one in which transformers writes a model
                self._load(name)
            processes.wait()
        else:
            processes.once(name, partial(self._load, name))
        for old in set(self._loaded) - set(self._names):
            self._unload(old)

    def _load(self, name: str) -> None:
        path = self._folder.write(name).resolve()
        self._servers.on_each(lambda server: server.load(name, path, whole=self._whole))
        self._loaded.append(name)

    def _unload(self, name: str) -> None:
        if not self._whole:
            self._servers.on_each(lambda server: server.unload(name))
        self._loaded.remove(name)
        self._folder.delete(name)

    def _forget(self) -> None:
        """A server's cache is kept by adapter, and every version is an adapter of its own."""
        self._servers.forget()

    def _check_weights(self, server: Server) -> None:
        vocabulary = self._model.config.vocab_size
        ids = tuple(torch.randint(vocabulary, (_PROBE + 1,), generator=torch.Generator().manual_seed(0)).tolist())
        draw = sampled(0, Sampling(_PROBE_TEMPERATURE))
        jobs = Job(ids[:1], _PROBE, forced(ids[1:])), Job(ids[:1], _PROBE, draw)
        try:
            told, free = server.complete(jobs, self._names[-1] if self._whole else None)
        except BadRequest as refused:  # for its tokens
            raise self._another(server, refused.reason) from refused
        if told.token_ids != ids[1:]:
            raise UserError(FIELD, server.url, "it draws its tokens itself, not as it is told", START)
        if odd := [token for token in free.token_ids if not 0 <= token < vocabulary]:
            raise self._another(server, f"it drew token {odd[0]}, of {vocabulary}")
        gaps, steps = zip(
            *(self._gaps(ids[:1], drawn, t) for drawn, t in ((told, 1.0), (free, _PROBE_TEMPERATURE))), strict=True
        )
        mean, allowed = float(torch.cat(gaps).mean()), max(_LEAST_TOLERANCE, _ROUNDINGS * max(steps))
        found = f"{mean:.2g} nats away from those of the model that is trained (mean of {2 * _PROBE} tokens"
        if not mean <= allowed:
            reason = f"it serves {server.model!r}, whose logprobs are {found}; rounding makes up to {allowed:.2g})"
            raise UserError(FIELD, server.url, reason, SAME)
        processes.tell(f"{server.url}: logprobs are {found}, allowed {allowed:.2g})")

    def _another(self, server: Server, found: str) -> UserError:
        reason = f"it serves {server.model!r}, which is another model than the one that is trained: {found}"
        return UserError(FIELD, server.url, reason, SAME)

    def _gaps(self, prompt: TokenIds, drawn: Drawn, temperature: float) -> tuple[Tensor, float]:
        """Distance (T,) of the server's logprobs to those of the base that is here, and the step between neighbouring
        logits."""
        model = self._model
        ids = torch.tensor([prompt + drawn.token_ids], device=model.device)
        with torch.no_grad(), nullcontext() if self._whole else model.disable_adapter():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        logprobs = (logits.float() / temperature).log_softmax(-1)
        ours = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()
        return (ours - torch.tensor(drawn.logprobs)).abs(), step_at(logits, model.dtype) / temperature
