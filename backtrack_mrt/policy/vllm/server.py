"""One `vllm serve` on GPUs of its own, asked over HTTP for chunks of jobs (see `endpoint`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.json_client import JsonClient
from backtrack_mrt.policy.vllm.jobs import PATH, Drawn, Job, as_json

FIELD = "engine.server"
START = "Start it with `backtrack-mrt serve` (docs/engines.md)."
_CACHE = re.compile(r'^vllm:cache_config_info\{.*?\bkv_cache_size_tokens="(\d+)"', re.MULTILINE)  # of each engine
SAME = f"Serve the model of model.name_or_path in the type of model.dtype. {START}"


class Server(JsonClient):
    """A running `vllm serve`, of which `max_rows` jobs at a time are asked. Every failure is a UserError. cache_tokens:
    whose keys and values it has room for (None: it does not say)."""

    def __init__(self, url: str, max_rows: int) -> None:
        super().__init__(url, field=FIELD, key="VLLM_API_KEY", remedy=START)
        self._max_rows = max_rows
        served = [row for row in self.ask("GET", "/v1/models")["data"] if not row.get("parent")]
        self.model, self.context_length = str(served[0]["id"]), int(served[0]["max_model_len"])
        try:
            rooms = [int(room) for room in _CACHE.findall(self.text("/metrics"))]
        except UserError:  # vLLM was started without them
            rooms = []
        self.cache_tokens = sum(rooms) or None

    def complete(self, jobs: Sequence[Job], model: str | None = None) -> list[Drawn]:
        """The answers in order; model: an adapter's name (None: the base)."""
        body = {"model": model or self.model, "max_rows": self._max_rows, "jobs": as_json(jobs)}
        answers = self.ask("POST", PATH, body)
        return [Drawn(tuple(row["token_ids"]), tuple(row["logprobs"]), row["cached"]) for row in answers]
