#!/usr/bin/env python
"""The first hour on a GPU: does everything start, and what does it reach? One JSON row a step, also behind failed ones.

    python scripts/smoke_gpu.py                 # `make gpu`: at most 30 minutes of one H100
    python scripts/smoke_gpu.py --only plan     # some steps

Without a GPU every step has a small variant, so that the script itself is known to run. A step that cannot run here
(no vLLM, no SmolLM2) says so. The exit code is the number of steps that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"
WHOLE = 30 * 60  # seconds of all steps
SHORT = ("--training.steps", "2", "--training.problems_per_step", "4", "--training.group_size", "4")
SHORT += ("--training.micro_batch_size", "8", "--data.train_size", "8", "--data.eval_size", "4")
MEASURED = ("loss", "grad_norm", "time/step", "time/rollout", "time/prover", "time/update", "sampling/")


@dataclass(frozen=True)
class Step:
    """A command. seconds: the most it may take. run: the directory of the run that it makes, if any. lacks: why it
    cannot run here."""

    name: str
    command: list[str]
    seconds: int
    run: Path | None = None
    lacks: str = ""

    def row(self, left: float) -> dict[str, Any]:
        """What came out, within the seconds that are left."""
        if self.lacks:
            return {"step": self.name, "skipped": self.lacks}
        start, limit = time.perf_counter(), min(self.seconds, left)
        here = os.environ | {"BACKTRACK_MRT_TEST_DEVICE": "cuda"}
        try:
            done = subprocess.run(
                self.command, cwd=ROOT, env=here, capture_output=True, text=True, timeout=max(limit, 1), check=False
            )
            code, said = done.returncode, done.stdout.strip() or done.stderr.strip()
            error = done.stderr.strip()[-600:] if code else ""
        except subprocess.TimeoutExpired:
            code, said, error = -1, "", f"did not end in {limit:.0f} s"
        row = {"step": self.name, "ok": code == 0, "seconds": round(time.perf_counter() - start, 1)}
        row |= {"said": said.splitlines()[-6:]} | ({"error": error} if error else {})
        return row | (measured(self.run) if self.run and code == 0 else {})


def measured(run: Path) -> dict[str, float]:
    """The last step's numbers of a run."""
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {name: value for name, value in last.items() if name.startswith(MEASURED)}


def steps(folder: Path, gpu: bool) -> Iterator[Step]:
    """All steps; their runs go to `folder`."""
    python = [sys.executable]
    train = [*python, "-m", "backtrack_mrt", "train"]
    vllm = "" if find_spec("vllm") else "vLLM is not installed"
    config = ["--tokens", "64"]
    if gpu:
        config = ["--config", "llama31_8b.yaml", "--training.problems_per_step", "8", "--tokens", "512"]
    yield Step("device", [*python, "-m", "torch.utils.collect_env"] if gpu else [*python, "-c", "import torch"], 60)
    yield Step("plan", [*train, "--config", "llama31_8b.yaml", "--dry-run", *([] if gpu else ["h100"])], 120)
    for engine in ("hf", "vllm"):
        for dtype in ("float32", "bfloat16"):
            run = folder / f"{engine}-{dtype}"
            flags = ["--engine.type", engine, "--model.dtype", dtype, "--output-dir", str(run)]
            lacks = vllm if engine == "vllm" else ""
            yield Step(f"mrt-rl {engine} {dtype}", [*train, "--algo", "mrt-rl", *SHORT, *flags], 180, run, lacks)
    engines = [f"tests/policy/test_{name}.py" for name in ("step_graphs", "engine_contract", "hf_engine", "trial")]
    yield Step("engine tests", [*python, "-m", "pytest", "-q", *engines, "-m", "not vllm"], 240)
    chosen = ["tests/training/test_resume.py", "-k", "after_every_step", "-m", "not vllm"]
    lacks = "" if gpu else "processors sum in one order: `make test-marked` has it"
    yield Step("resume", [*python, "-m", "pytest", "-q", *chosen], 240, None, lacks)
    yield Step("vLLM tests", [*python, "-m", "pytest", "-q", "tests/policy", "-m", "vllm"], 360, None, vllm)
    yield Step("8B shape", [*python, "scripts/bench/large.py", *config], 360)
    smollm2 = "" if SMOLLM2.is_dir() else "no SmolLM2: python scripts/fetch_smollm2.py"
    size = [] if gpu else ["--training.steps", "1", "--data.eval_size", "4"]
    flags = ["--config", "smollm2_135m.yaml", "--compare", "grpo", *size, "--output-dir", str(folder / "smollm2")]
    seeds = ["--seeds", "0", "1", "2"] if gpu else ["--seeds", "0"]
    yield Step("SmolLM2", [*train, "--algo", "mrt-rl", *flags, *seeds], 600, None, smollm2)


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
