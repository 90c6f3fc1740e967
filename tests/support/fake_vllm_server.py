"""A server that answers like `backtrack-mrt serve`, with a Hugging Face model behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM

from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.vllm.jobs import WEIGHTS_PATH, Job
from backtrack_mrt.types import Request, Sampling

_ONE_AT_A_TIME = Lock()  # for all servers of a process: peft loads an adapter by way of what all modules have


class _Refused(Exception):
    """What is asked for cannot be had: the status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


class FakeServer:
    """obeys: whether tokens are drawn as told. takes_adapters: whether adapters may be loaded while it runs;
    takes_weights: whole models. takes_jobs: whether it has the endpoint for them. rooms: tokens that the cache of each
    of its engines holds, as its metrics tell (None: it has no metrics)."""

    def __init__(
        self,
        base: Any,
        *,
        obeys: bool = True,
        takes_adapters: bool = True,
        takes_weights: bool = False,
        takes_jobs: bool = True,
        rooms: Sequence[int] | None = None,
    ) -> None:
        self.base, self.obeys, self.rooms = base, obeys, rooms
        self.takes_adapters, self.takes_weights, self.takes_jobs = takes_adapters, takes_weights, takes_jobs
        self.engines: dict[str, Engine] = {"base": HFEngine(base, max_rows=1)}
        self.loaded: list[str] = []  # names of all adapters, or weights, ever
        self.chunks: list[list[dict[str, Any]]] = []  # of jobs, as they came
        self.url = ""

    @contextmanager
    def running(self, port: int = 0) -> Iterator[FakeServer]:
        """While it listens at `url` (port 0: any)."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics" and fake.rooms is not None:
                    self.send_response(200)
                    self.send_header("content-type", "text/plain")
                    self.end_headers()
                    self.wfile.write(fake.metrics().encode())
                    return
                self._answer({"/v1/models": fake.models(), "/health": {}}.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                try:
                    with _ONE_AT_A_TIME:
                        self._answer(fake.answer(self.path, body))
                except _Refused as refused:
                    self._answer({"error": {"message": refused.reason}}, refused.status)

            def _answer(self, content: Any, status: int = 200) -> None:
                self.send_response(404 if content is None else status)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: Any) -> None: ...

        class Listening(ThreadingHTTPServer):
            request_queue_size = 128  # a completions engine asks for all rows at once

        httpd = Listening(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{httpd.server_port}"
        Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            httpd.shutdown()
            httpd.server_close()

    def models(self) -> dict[str, Any]:
        """The base first, adapters name it as their parent."""
        length = self.base.config.max_position_embeddings
        rows = [{"id": name, "parent": None if name == "base" else "base"} for name in self.engines]
        return {"data": [{**row, "max_model_len": length} for row in rows]}

    def metrics(self) -> str:
        """Of each engine, as Prometheus reads them."""
        told = 'vllm:cache_config_info{{block_size="16",engine="{}",kv_cache_size_tokens="{}",num_gpu_blocks="9"}} 1.0'
        lines = [told.format(engine, room) for engine, room in enumerate(self.rooms or ())]
        return "\n".join(["# TYPE vllm:cache_config_info gauge", *lines, 'vllm:num_requests_running{engine="0"} 0.0'])

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """The body of the answer, None for "not found"."""
        if path == "/v1/jobs":
            if not self.takes_jobs:
                return None
            self._known(body["model"])
            jobs = [Job(**{**row, "prompt_ids": tuple(row["prompt_ids"])}) for row in body["jobs"]]
            config = self.base.config
            for job in jobs:
                if objection := job.objection(config.vocab_size, config.max_position_embeddings):
                    raise _Refused(400, objection)
            self.chunks.append(body["jobs"])
            return [self._complete(body["model"], job) for job in body["jobs"]]
        if path == WEIGHTS_PATH:
            if not self.takes_weights:
                raise _Refused(400, "It was started for adapters")
            model = AutoModelForCausalLM.from_pretrained(body["path"])
            self.engines = {"base": self.engines["base"], body["name"]: HFEngine(model.eval(), max_rows=1)}
            self.loaded.append(body["name"])
            return {}
        if not self.takes_adapters:
            return None
        if path == "/v1/load_lora_adapter":
            name, folder = body["lora_name"], Path(body["lora_path"])
            if name in self.engines:
                raise _Refused(400, f"{name} has already been loaded")
            # in no way by random numbers: those of this process are the trainer's
            model = PeftModel.from_pretrained(deepcopy(self.base), folder, low_cpu_mem_usage=True)
            self.engines[name] = HFEngine(model.eval(), max_rows=1)
            self.loaded.append(name)
        elif path == "/v1/unload_lora_adapter":
            self._known(body["lora_name"])
            del self.engines[body["lora_name"]]
        return {}

    def restart(self) -> None:
        """As somebody who looks after servers does with one that broke down."""
        self.engines = {"base": self.engines["base"]}

    def _known(self, name: str) -> None:
        if name not in self.engines:
            raise _Refused(404, f"{name} does not exist")

    def _complete(self, model: str, job: dict[str, Any]) -> dict[str, Any]:
        engine, draw, prompt = self.engines[model], job["draw"], tuple(job["prompt_ids"])
        if "forced" in draw and self.obeys:
            ids = tuple(draw["forced"])
            (logprobs,) = (row.tolist() for row in engine.score([prompt], [ids], [tuple(draw.get("endings", ()))]))
        else:
            sampling = Sampling(draw.get("temperature", 1.0), draw.get("top_p", 1.0), frozenset(job["stop_ids"]))
            request = Request(prompt, job["max_new_tokens"], draw.get("seed", 0))
            (done,) = engine.generate([request], sampling)
            ids, logprobs = done.token_ids, list(done.logprobs)
        return {"token_ids": list(ids), "logprobs": logprobs, "cached": 0}
