"""Real servers on a CPU: `backtrack-mrt serve`, and those that anybody starts, vLLM's and that of transformers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import httpx2

_SECONDS = 240
_PYTHON = [sys.executable, "-m"]


@contextmanager
def served(model: Path, *, max_rank: int | None = None, whole: bool = False) -> Iterator[str]:
    """The address of vLLM, while it runs: ready for training with adapters of that rank, or of all weights
    (neither: as anybody starts it)."""
    quick = ["--max-num-seqs", "64", "--enforce-eager"]
    if max_rank is None and not whole:
        server = "vllm.entrypoints.openai.api_server"
        command, rest = [*_PYTHON, server, "--model", str(model), "--dtype", "float32"], quick
    else:
        trained = ["--model.full_finetuning", "true"] if whole else ["--model.lora.r", str(max_rank)]
        settings = ["--model.name_or_path", str(model), *trained]
        command, rest = [*_PYTHON, "backtrack_mrt", "serve", *settings], ["--", *quick]
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    with _running(command, rest, environment) as url:
        yield url


@contextmanager
def served_by_transformers(model: Path) -> Iterator[str]:
    """The address of `transformers serve`, while it runs. It tells no logprobs, nor, of a directory, what it serves."""
    command = [*_PYTHON, "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    with _running(command, [], {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": mkdtemp()}) as url:
        yield url


@contextmanager
def _running(command: list[str], rest: list[str], environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = Path(mkdtemp()) / "server.log"
    command = [*command, "--host", "127.0.0.1", "--port", str(port), *rest]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", trust_env=False).is_success
    except httpx2.TransportError:
        return False
