"""A server of vLLM on a CPU: `backtrack-mrt serve`, or what anybody starts."""

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


@contextmanager
def served(model: Path, *, max_rank: int | None = None) -> Iterator[str]:
    """Its address, while it runs: ready for training with adapters of that rank (None: as anybody starts it)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = [sys.executable, "-m"]
    at = ["--host", "127.0.0.1", "--port", str(port)]
    quick = ["--max-num-seqs", "64", "--enforce-eager"]
    if max_rank is None:
        server = "vllm.entrypoints.openai.api_server"
        command = [*python, server, "--model", str(model), "--dtype", "float32", *at, *quick]
    else:
        settings = ["--model.name_or_path", str(model), "--model.lora.r", str(max_rank)]
        command = [*python, "backtrack_mrt", "serve", *settings, *at, "--", *quick]
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    log = Path(mkdtemp()) / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"vllm serve did not start:\n{log.read_text()[-4000:]}")
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
