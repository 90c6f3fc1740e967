"""Short runs in a process of their own, alone or under a launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backtrack_mrt.runs.directory import RunDir

LAUNCHERS = Path(__file__).parents[2] / "configs" / "accelerate"
RECORDING = """
import sys, torch
from backtrack_mrt.runs import processes
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.training.train import train
from backtrack_mrt.training.rl import PolicyTrainer

inner, request = PolicyTrainer._generate_and_score_completions, read_request(sys.argv[1:])

def recording(trainer, inputs):
    output = inner(trainer, inputs)
    lengths = output["completion_mask"].sum(1).tolist()
    rows = [row[:length] for row, length in zip(output["advantages"], lengths)]
    name = f"advantages_{trainer.state.global_step + 1}_{processes.rank()}.pt"
    torch.save(rows, request.config.run_path / name)
    return output

PolicyTrainer._generate_and_score_completions = recording
train(request)
processes.leave()
"""


TWO = ("--num_processes", "2", "--main_process_port", "0")
ACCELERATE = ("-m", "accelerate.commands.launch", "--config_file")
SIZES = ("--training.steps", "2", "--training.problems_per_step", "3", "--training.group_size", "4")
SIZES += ("--training.micro_batch_size", "6", "--data.train_size", "24", "--data.eval_size", "7")

CUT = {  # a file of DeepSpeed's own; every weight is cut up, however small
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


def several(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many processes, as launchers tell it."""
    told = {"WORLD_SIZE": str(number), "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (told | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)


def launched(name: str, folder: Path) -> list[str]:
    """Two processes under one of the launchers, or under DeepSpeed's own file. Skips where DeepSpeed is not there."""
    file = LAUNCHERS / f"{name}.yaml"
    if name.startswith("zero3"):
        pytest.importorskip("deepspeed", reason="pip install 'backtrack-mrt[deepspeed]'")
    if name == "zero3, cut":
        (folder / "deepspeed.json").write_text(json.dumps(CUT))
        told = {"deepspeed_config_file": str(folder / "deepspeed.json"), "zero3_init_flag": False}
        file = folder / "launcher.yaml"
        file.write_text(json.dumps({"distributed_type": "DEEPSPEED", "deepspeed_config": told}))
    return [*ACCELERATE, str(file), *TWO]


def run(folder: Path, *launcher: str, flags: Sequence[str]) -> RunDir:
    """A short run that keeps the advantages, with groups that lie across two processes."""
    script = folder.with_suffix(".py")
    script.write_text(RECORDING)
    sizes = [*SIZES, "--training.saved_rollouts", "12", "--output-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), *sizes, *flags],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # two processes with two threads each would wait for one another
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return RunDir(folder)
