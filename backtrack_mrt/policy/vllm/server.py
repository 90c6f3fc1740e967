"""vLLM on GPUs of its own, behind the server of `vllm serve` (OpenAI's completions, with token ids in and out).

Needs no vLLM here. The server must draw its tokens as jobs say, and take adapters while it runs; docs/engines.md has
the command. That it does, and that its weights are those that are trained, is checked at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from peft import PeftModel

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.lora import AdapterFolder
from backtrack_mrt.policy.json_client import JsonClient
from backtrack_mrt.policy.vllm.jobs import Drawn, Job, JobEngine, forced, sampled
from backtrack_mrt.types import Sampling, TokenIds

_FIELD = "engine.server"
_START = "Start it with the command of docs/engines.md."
_SAME = f"Serve the model of model.name_or_path in the type of model.dtype. {_START}"
_PROBE, _PROBE_TEMPERATURE = 24, 0.5  # tokens; not 1, to see whether logprobs are at the temperature
_TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.15}  # nats, mean: about three times what rounding makes


class Server(JsonClient):
    """A running `vllm serve`. Every failure is a UserError."""

    def __init__(self, url: str) -> None:
        super().__init__(url, field=_FIELD, key="VLLM_API_KEY", remedy=_START)
        served = [row for row in self.ask("GET", "/v1/models")["data"] if not row.get("parent")]
        self.model, self.context_length = str(served[0]["id"]), int(served[0]["max_model_len"])

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
        answer = self.ask("POST", "/v1/completions", body, _SAME)
        (choice,) = answer["choices"]
        details = answer["usage"].get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") or 0
        return Drawn(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"]), cached)


class ServerEngine(JobEngine):
    """Asks `server`, which serves the base of `model`.

    adapters: directory in which the server finds the adapters that are written here (None: among the temporary files,
    for a server on this machine). sent: whose adapter is sent (None: that of `model`). Raises UserError for a server
    with other weights or without the settings it needs.
    """

    def __init__(
        self,
        model: PeftModel,
        server: Server,
        *,
        max_rows: int,
        adapters: Path | None = None,
        sent: PeftModel | None = None,
    ) -> None:
        super().__init__(min(server.context_length, model.config.max_position_embeddings), max_rows)
        self._server, self._model = server, model
        self._adapters = AdapterFolder(sent or model, adapters)
        self._adapter: str | None = None
        self._threads = ThreadPoolExecutor(max_rows)
        self._check_weights()
        self._hand_over()
        self._outdated = False

    def close(self) -> None:
        """See `Engine.close`."""
        self._unload()
        self._threads.shutdown()

    def _run(self, jobs: Sequence[Job]) -> list[Drawn]:
        name = self._server.model if self._in_reference or self._adapter is None else self._adapter
        return list(self._threads.map(lambda job: self._server.complete(name, job), jobs))

    def _hand_over(self) -> None:
        name, _, path = self._adapters.write()
        remedy = f"{_START} It must see the same directory at engine.adapters."
        self._server.ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path.resolve())}, remedy)
        self._unload()
        self._adapter = name

    def _unload(self) -> None:
        if self._adapter is not None:
            self._server.ask("POST", "/v1/unload_lora_adapter", {"lora_name": self._adapter})
            self._adapter = None

    def _forget(self) -> None:
        """The server's cache is kept by adapter, and every version is an adapter of its own."""

    def _check_weights(self) -> None:
        vocabulary = self._model.config.vocab_size
        ids = tuple(torch.randint(vocabulary, (_PROBE + 1,), generator=torch.Generator().manual_seed(0)).tolist())
        draw = sampled(0, Sampling(_PROBE_TEMPERATURE))
        with self.reference():
            told, free = self._run([Job(ids[:1], _PROBE, forced(ids[1:])), Job(ids[:1], _PROBE, draw)])
        if told.token_ids != ids[1:]:
            raise UserError(_FIELD, self._server.url, "it draws its tokens itself, not as it is told", _START)
        gaps = [*self._gaps(ids[:1], told, 1.0), *self._gaps(ids[:1], free, _PROBE_TEMPERATURE)]
        mean = sum(gaps) / len(gaps)
        if not mean <= _TOLERANCE[self._model.dtype]:
            reason = (
                f"it serves {self._server.model!r}, whose logprobs are {mean:.2g} nats away from those of the model "
                f"that is trained (mean of {len(gaps)} tokens)"
            )
            raise UserError(_FIELD, self._server.url, reason, _SAME)

    def _gaps(self, prompt: TokenIds, drawn: Drawn, temperature: float) -> list[float]:
        """Distance of the server's logprobs to those of the base that is here."""
        model = self._model
        ids = torch.tensor([prompt + drawn.token_ids], device=model.device)
        with torch.no_grad(), model.disable_adapter():
            logits = model(ids).logits[0, len(prompt) - 1 : -1].float() / temperature
        ours = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0].tolist()
        return [abs(a - b) for a, b in zip(ours, drawn.logprobs, strict=True)]
