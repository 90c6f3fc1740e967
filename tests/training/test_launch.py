"""Every launcher command of the documents through its start-up checks, and the table of what runs under what."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from support.documents import section
from support.launched_runs import LAUNCHERS, several

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import processes
from backtrack_mrt.training import launch
from backtrack_mrt.training.launch import check_launch
from backtrack_mrt.training.plan import plan
from backtrack_mrt.training.roofline import device

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *LAUNCHERS.glob("*.yaml"), *ROOT.glob("configs/*.yaml")]
SERVED = ["--engine.type", "vllm", "--engine.server", "http://host:8000"]
ENGINES = {"hf": [], "vllm": ["--engine.type", "vllm"], "vllm server": SERVED}
ALGOS = {
    "RL": ["--algo", "mrt-rl", "--algorithm.credit", "prefix", "--algorithm.answer_weight", "0"],
    "self-training": ["--algo", "rise"],
    "`sft`": ["--algo", "sft"],
}
OWN_GROUP = "opens a process group of its own"
REFUSED = {  # launcher, engine, algorithm; None: all
    ("ddp", "vllm", None): OWN_GROUP,
    ("fsdp", "vllm", None): OWN_GROUP,
    ("zero3", "vllm", None): OWN_GROUP,
}


def documented() -> list[str]:
    """The launcher commands of the documents, each in one line."""
    found = []
    for path in DOCUMENTS:
        text = re.sub(r"\\\n#?\s*", "", path.read_text(encoding="utf-8"))
        found += re.findall(r"^#?\s*(accelerate launch --config_file .+)$", text, re.MULTILINE)
    return found


def parsed(command: str) -> Namespace:
    args = launch_command_parser().parse_args(shlex.split(command, comments=True)[2:])
    args.deepspeed_fields_from_accelerate_config = ""  # set by accelerate between these calls
    return _validate_launch_command(args)[0]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
    """Sets what a launcher tells its processes, on a machine with DeepSpeed; gives the flags of `train`."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(launch, "find_spec", lambda name: name)

    def tell(command: str) -> list[str]:
        args = parsed(command)
        told = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
        for name in told:
            if name.startswith(("ACCELERATE_", "FSDP_")):
                monkeypatch.setenv(name, told[name])
        several(args.num_processes, monkeypatch)
        assert (args.training_script, args.training_script_args[0]) == ("backtrack_mrt", "train")
        return list(args.training_script_args[1:])

    return tell


@pytest.mark.parametrize("command", documented())
def test_every_documented_command_starts_and_fits(command, launched):
    request = read_request(launched(command))
    assert processes.count() == 8
    check_launch(request.config)
    found = plan(request.config, device("h100"))
    assert found.fits, found.verdict()


def test_all_launchers_are_documented():
    commands = "\n".join(documented())
    assert all(f"configs/accelerate/{path.name}" in commands for path in LAUNCHERS.glob("*.yaml"))
    assert len(list(LAUNCHERS.glob("*.yaml"))) == 3


def reason(launcher: str, engine: str, algo: str) -> str | None:
    keys = ((launcher, e, a) for e in (engine, None) for a in (algo, None))
    return next((REFUSED[key] for key in keys if key in REFUSED), None)


@pytest.mark.parametrize("launcher", ["none", "ddp", "fsdp", "zero3"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algo", ALGOS)
def test_each_cell_of_the_table(launcher, engine, algo, launched):
    flags = [*ALGOS[algo], *ENGINES[engine]]
    if launcher != "none":
        file = f"configs/accelerate/{launcher}.yaml"
        launched(f"accelerate launch --config_file {file} --num_processes 2 -m backtrack_mrt train")
    config = read_request(flags).config
    refused = reason(launcher, engine, algo)
    if refused is None:
        check_launch(config)
    else:
        with pytest.raises(UserError, match=refused):
            check_launch(config)


def test_the_documented_table_is_that_one():
    rows = [line for line in section("docs/processes.md", "What runs under what").splitlines() if line.startswith("|")]
    shown = {}
    for line in rows[2:]:
        launcher, engine, *cells = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        shown |= {(launcher, engine, algo): cell for algo, cell in zip(ALGOS, cells, strict=True)}
    names = {"none": "no launcher", "ddp": "ddp.yaml", "fsdp": "fsdp.yaml", "zero3": "zero3.yaml"}
    for launcher, name in names.items():
        for engine in ENGINES:
            for algo in ALGOS:
                runs = reason(launcher, engine, algo) is None
                assert shown[name, engine, algo].startswith("runs" if runs else "refused"), (name, engine, algo)


def test_zero3_without_deepspeed_is_one_line(launched, monkeypatch):
    launched("accelerate launch --config_file configs/accelerate/zero3.yaml -m backtrack_mrt train")
    config = read_request(["--algo", "sft"]).config
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ZeRO-3.*not installed.*backtrack-mrt\[deepspeed\]"):
        check_launch(config)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--algo", "sft", "--training.problems_per_step", "15", "--training.micro_batch_size", "8"], "shared evenly"),
        (["--training.problems_per_step", "12", "--training.micro_batch_size", "32"], r"48 rows.*Set it to 24"),
    ],
)
def test_rows_that_do_not_come_out_even_are_refused(flags, match, monkeypatch):
    several(2, monkeypatch)
    with pytest.raises(UserError, match=match):
        check_launch(read_request(flags).config)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"WORLD_SIZE": "2", "MASTER_PORT": "1"}, r"WORLD_SIZE = '2': .* sets MASTER_ADDR too\. Start"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "1", "MASTER_ADDR": "a", "RANK": "0"}, "'2': .* sets LOCAL_RANK too"),
        ({"RANK": "1"}, "RANK = 1: not below WORLD_SIZE, which is 1"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK = 5: not below WORLD_SIZE, which is 2"),
        ({"LOCAL_RANK": "2", "WORLD_SIZE": "2"}, "LOCAL_RANK = 2: not below WORLD_SIZE"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK = 'x': not a whole number of at least 0"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two': not a whole number of at least 1"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT = '99999': not a whole number from 0 to 65535"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK = '0': .* sets MASTER_ADDR and MASTER_PORT too"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "'bf16': the updates would compute in it, and model.dtype is float32"),
        ({"ACCELERATE_MIXED_PRECISION": "nonsense"}, "'nonsense': the updates would compute in it"),
    ],
)
def test_half_a_launcher_and_another_precision_are_refused(told, match, monkeypatch):
    config = read_request([]).config
    check_launch(config)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=match):
        check_launch(config)


def test_the_precision_of_the_config_is_no_other(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    check_launch(read_request(["--model.dtype", "bfloat16"]).config)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    check_launch(read_request([]).config)
