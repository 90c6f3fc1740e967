#!/usr/bin/env python
"""The first hour on a GPU: does everything start, and what does it reach? One JSON row a step, also behind failed ones.

    python scripts/smoke_gpu.py                 # `make gpu`: at most 30 minutes of one H100
    python scripts/smoke_gpu.py --only plan     # some steps

Without a GPU every step has a small variant, so that the script itself is known to run (tests/test_smoke_gpu.py). A
step that cannot run here (no vLLM, no SmolLM2) says so. The exit code is the number of steps that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import torch

ROOT = Path(__file__).parents[1]
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"
WHOLE = 30 * 60  # seconds of all steps
SAID = 12  # lines of a step's output that its row has
PYTHON = [sys.executable]
TRAIN = [*PYTHON, "-m", "backtrack_mrt", "train"]
SHORT = ("--training.steps", "2", "--training.problems_per_step", "4", "--training.group_size", "4")
SHORT += ("--training.micro_batch_size", "8", "--data.train_size", "8", "--data.eval_size", "4")
MEASURED = ("loss", "grad_norm", "time/step", "time/rollout", "time/prover", "time/update", "sampling/")


@dataclass(frozen=True)
class Step:
    """A command. seconds: the most it may take. run: the directory of the run that it makes, if any. lacks: why it
    cannot run here. server: runs beside it, at `url`, and must answer there before it begins."""

    name: str
    command: list[str]
    seconds: int
    run: Path | None = None
    lacks: str = ""
    server: list[str] | None = None
    url: str = ""

    def row(self, left: float) -> dict[str, Any]:
        """What came out, within the seconds that are left."""
        if self.lacks:
            return {"step": self.name, "skipped": self.lacks}
        start, limit = time.perf_counter(), max(min(self.seconds, left), 1)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                code, wrong = self._ended(start + limit, out, err), ""
            except TimeoutError:
                code, wrong = -1, f"did not end in {limit:.0f} s"
            said, error = (file.seek(0) or file.read().strip() for file in (out, err))
        row = {"step": self.name, "ok": code == 0, "seconds": round(time.perf_counter() - start, 1)}
        row |= {"said": (said or error).splitlines()[-SAID:]}
        row |= {"error": f"{wrong}\n{error}".strip()[-600:]} if code else {}
        return row | (measured(self.run) if self.run and code == 0 else {})

    def _ended(self, end: float, out: IO[str], err: IO[str]) -> int:
        """The exit code. Raises TimeoutError."""
        if self.server:
            with running(self.server, err, err) as server:
                while not answers(self.url):
                    if server.poll() is not None:
                        return server.returncode or 1
                    if time.perf_counter() > end:
                        raise TimeoutError
                    time.sleep(1)
                return ended(self.command, end, out, err)
        return ended(self.command, end, out, err)


def ended(command: list[str], end: float, out: IO[str], err: IO[str]) -> int:
    """The exit code of the command. Raises TimeoutError."""
    with running(command, out, err) as process:
        try:
            return process.wait(max(end - time.perf_counter(), 0))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None


@contextmanager
def running(command: list[str], out: IO[str], err: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command; at the end of the block it ends, with all that it has started: vLLM's processes hold a GPU's
    memory."""
    here = os.environ | {"BACKTRACK_MRT_TEST_DEVICE": "cuda"}
    process = subprocess.Popen(command, cwd=ROOT, env=here, stdout=out, stderr=err, start_new_session=True)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(10)


def answers(url: str) -> bool:
    """Whether a server is ready there."""
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def measured(run: Path) -> dict[str, float]:
    """The last step's numbers of a run."""
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {name: value for name, value in last.items() if name.startswith(MEASURED)}


def steps(folder: Path, gpu: bool) -> Iterator[Step]:
    """All steps; their runs go to `folder`."""
    vllm = "" if find_spec("vllm") else "vLLM is not installed"
    few = ["--training.problems_per_step", "2", "--training.group_size", "4", "--training.micro_batch_size", "8"]
    shape = ["--config", "llama31_8b.yaml", "--training.problems_per_step", "4"] if gpu else few
    yield Step("device", [*PYTHON, "-m", "torch.utils.collect_env"] if gpu else [*PYTHON, "-c", "import torch"], 60)
    yield Step("plan", [*TRAIN, "--config", "llama31_8b.yaml", "--dry-run", *([] if gpu else ["h100"])], 120)
    for engine, lacks in (("hf", ""), ("vllm", vllm)):
        for dtype in ("float32", "bfloat16"):
            run = folder / f"{engine}-{dtype}"
            flags = ["--engine.type", engine, "--model.dtype", dtype, "--output-dir", str(run)]
            yield Step(f"mrt-rl {engine} {dtype}", [*TRAIN, "--algo", "mrt-rl", *SHORT, *flags], 180, run, lacks)
    yield from tests(gpu, vllm)
    tokens = ["--tokens", "4096" if gpu else "64"]
    yield bench("8B step", 400, "large", *tokens, *shape, "--prover.estimator", "likelihood")
    for engine, lacks in (("hf", ""), ("vllm", vllm)):
        flags = ["--engine.type", engine, "--protocol.attempt_tokens", "128" if gpu else "16", *shape]
        yield bench(f"8B mismatch {engine}", 200, "mismatch", *flags, lacks=lacks)
    yield from speed_of_vllm(gpu, vllm)
    yield served(folder / "served", gpu, vllm)
    yield smollm2(folder / "smollm2", gpu)


def bench(name: str, seconds: int, script: str, *flags: str, lacks: str = "") -> Step:
    """A script of scripts/bench."""
    return Step(name, [*PYTHON, f"scripts/bench/{script}.py", *flags], seconds, lacks=lacks)


def tests(gpu: bool, vllm: str) -> Iterator[Step]:
    """The project's own tests that are for a GPU, too. As vLLM is set up there, its engine runs with CUDA graphs, LoRA
    in Triton and asynchronous scheduling."""
    pytest = [*PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    engines = [f"tests/policy/test_{name}.py" for name in ("step_graphs", "engine_contract", "hf_engine", "trial")]
    yield Step("engine tests", [*pytest, *(engines if gpu else engines[:1]), "-m", "not vllm"], 240)
    chosen = ["tests/training/test_resume.py", "-k", "after_every_step", "-m", "not vllm"]
    lacks = "" if gpu else "processors sum in one order: `make test-marked` has it"
    yield Step("resume", [*pytest, *chosen], 240, lacks=lacks)
    whole = ["tests/policy"] if gpu else ["tests/policy/test_vllm_draws.py"]
    yield Step("vLLM tests", [*pytest, *whole, "-m", "vllm"], 360, lacks=vllm)


def speed_of_vllm(gpu: bool, vllm: str) -> Iterator[Step]:
    """Tokens a second with our `Draws` (in lock step) and without (bare); what vLLM has in its cache at a turn, and how
    often it gives a row up, at two values of `engine.max_rows`."""
    model = str(SMOLLM2) if gpu and SMOLLM2.is_dir() else "tiny"
    size = ["--rows", "256", "--turns", "5", "--repetitions", "3", "--dtype", "bfloat16"]
    small = ["--rows", "4", "--turns", "2", "--repetitions", "1", "--turn-tokens", "8"]
    flags = ["--model", model, "--trajectories", "0", *(size if gpu else small)]
    yield bench("Draws", 200, "vllm_engine", *flags, lacks=vllm)
    size = ["--rows", "64", "256", "--training.problems_per_step", "32", "--training.group_size", "8"]
    small = ["--rows", "4", "16", "--training.problems_per_step", "4", "--training.group_size", "4"]
    flags = [*(size if gpu else small), "--engine.context_length", "384"]
    yield bench("cache", 240, "vllm_cache", *flags, lacks=vllm)


def served(run: Path, gpu: bool, vllm: str) -> Step:
    """`backtrack-mrt serve`, and a training that asks it, as docs/engines.md has them: on one GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = ["--gpu-memory-utilization", "0.4"] if gpu else ["--enforce-eager", "--max-num-seqs", "64"]
    server = [*PYTHON, "-m", "backtrack_mrt", "serve", "--host", "127.0.0.1", "--port", str(port), "--", *own]
    url = f"http://127.0.0.1:{port}"
    asked = ["--algo", "mrt-rl", *SHORT, "--engine.type", "vllm", "--engine.server", url, "--output-dir", str(run)]
    return Step("serve", [*TRAIN, *asked], 240, run, vllm, server, url)


def smollm2(folder: Path, gpu: bool) -> Step:
    """mrt-rl against grpo: on problems of the hub, with three seeds; without a GPU the embedded model and problems."""
    lacks = "" if SMOLLM2.is_dir() or not gpu else "no SmolLM2: python scripts/fetch_smollm2.py"
    size = ["--seeds", "0", "1", "2", "--training.steps", "8", "--data.eval_size", "128"]
    small = ["--seeds", "0", *SHORT, "--model.name_or_path", "tiny", "--model.dtype", "float32"]
    small += ["--data.train", "signs/train", "--data.eval", "signs/test", "--training.steps", "1"]
    flags = ["--algo", "mrt-rl", "--config", "smollm2_135m.yaml", "--compare", "grpo", "--output-dir", str(folder)]
    return Step("SmolLM2", [*TRAIN, *flags, *(size if gpu else small)], 600, lacks=lacks)


def main() -> int:
    """The steps that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of steps")
    args = parser.parse_args()
    failed, end = 0, time.perf_counter() + WHOLE
    with tempfile.TemporaryDirectory() as folder:
        all_steps = list(steps(Path(folder), torch.cuda.is_available()))
        names = [step.name for step in all_steps]
        if unknown := [name for name in args.only or () if name not in names]:
            parser.error(f"argument --only: there is no step {unknown[0]!r}. Steps: {', '.join(map(repr, names))}")
        for step in all_steps:
            if args.only is None or step.name in args.only:
                row = step.row(end - time.perf_counter())
                failed += row.get("ok") is False
                print(json.dumps(row), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
