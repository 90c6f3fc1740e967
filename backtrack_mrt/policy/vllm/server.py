"""One `vllm serve` on GPUs of its own, asked over HTTP (OpenAI's completions, with token ids in and out)."""

from __future__ import annotations

import re

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.json_client import JsonClient
from backtrack_mrt.policy.vllm.jobs import Drawn, Job

FIELD = "engine.server"
START = "Start it with the command of docs/engines.md."
_CACHE = re.compile(r'^vllm:cache_config_info\{.*?\bkv_cache_size_tokens="(\d+)"', re.MULTILINE)  # of each engine
SAME = f"Serve the model of model.name_or_path in the type of model.dtype. {START}"


class Server(JsonClient):
    """A running `vllm serve`. Every failure is a UserError. cache_tokens: whose keys and values it has room for (None:
    it does not say)."""

    def __init__(self, url: str) -> None:
        super().__init__(url, field=FIELD, key="VLLM_API_KEY", remedy=START)
        served = [row for row in self.ask("GET", "/v1/models")["data"] if not row.get("parent")]
        self.model, self.context_length = str(served[0]["id"]), int(served[0]["max_model_len"])
        try:
            rooms = [int(room) for room in _CACHE.findall(self.text("/metrics"))]
        except UserError:  # vLLM was started without them
            rooms = []
        self.cache_tokens = sum(rooms) or None

    def complete(self, model: str, job: Job) -> Drawn:
        """One job, by the base model or by an adapter of it."""
        body = {
            "model": model,
            "prompt": list(job.prompt_ids),
            "max_tokens": job.max_new_tokens,
            "stop_token_ids": job.stop_ids,
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            "vllm_xargs": job.draw,
            # said here, or the model's generation_config.json says it
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        answer = self.ask("POST", "/v1/completions", body, SAME)
        (choice,) = answer["choices"]
        details = answer["usage"].get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") or 0
        return Drawn(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"]), cached)
