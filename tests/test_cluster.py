"""The recipes of scripts/cluster/, with real processes on this machine under commands that answer like SLURM's."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.short_runs import metrics

from backtrack_mrt.cli.command import parser_of
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.runs.directory import RunDir

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "scripts" / "cluster"
STEPS = 3
FLAGS = ["--algo", "mrt-rl", "--training.steps", str(STEPS), "--training.problems_per_step", "4"]
FLAGS += ["--training.group_size", "4", "--training.micro_batch_size", "8", "--training.save_every", "99"]
FLAGS += ["--data.train_size", "24", "--data.eval_size", "4", "--evaluation.every", "99"]


PYTHON = f"exec {sys.executable} -m"
OURS = f'{PYTHON} backtrack_mrt "$@"'
STAND_IN = f'{PYTHON} support.stand_in_server "$@"'
Start = Callable[..., "subprocess.Popen[bytes]"]


def commands(folder: Path, serve: str) -> None:
    """SLURM's commands, Python's and ours. serve: what `backtrack-mrt serve` is, for the shell."""
    folder.mkdir(parents=True)
    scripts = {name: f'{PYTHON} support.fake_slurm {name} "$@"' for name in ("srun", "scancel", "scontrol")}
    scripts["backtrack-mrt"] = f'if [ "$1" = serve ]; then {serve}; fi\n{OURS}'
    scripts["accelerate"] = f'shift\n{PYTHON} accelerate.commands.launch "$@"'
    for name, lines in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the batch script as SLURM does. job: its folder."""
    batches, jobs = [], []

    def started(job: Path, run: Path, serve: str, servers: int = 2) -> subprocess.Popen[bytes]:
        commands(job / "bin", serve)
        told = {"JOB": str(job), "PATH": f"{job / 'bin'}:{os.environ['PATH']}", "PORT": free_port()}
        told |= {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
        told |= {"SERVERS": str(servers), "RANKS": "2", "SLURM_JOB_ID": "77"}
        told |= {"SLURM_JOB_NODELIST": "localhost", "SLURM_SUBMIT_DIR": str(ROOT)}
        command = ["bash", str(CLUSTER / "slurm.sbatch"), str(run), *FLAGS]
        log = (job / "log").open("w")
        batches.append(subprocess.Popen(command, env=os.environ | told, stdout=log, stderr=log, cwd=tmp_path))
        jobs.append(job)
        return batches[-1]

    yield started
    for batch in batches:
        batch.kill()
    for job in jobs:
        for pid in processes_of(job):
            os.kill(pid, signal.SIGKILL)


def processes_of(job: Path) -> list[int]:
    """The tasks of all steps of a job that are still there."""
    pids = [int(pid) for step in job.glob("*.step") for pid in step.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on(start: Start, tmp_path: Path) -> None:
    """Two ranks, two servers; SLURM's signal before the time limit, then the same job again, with other addresses."""
    run, first, again = tmp_path / "run", tmp_path / "first", tmp_path / "again"
    batch = start(first, run, STAND_IN)
    while not RunDir(run).metrics():
        assert batch.poll() is None, (first / "log").read_text()
        time.sleep(0.2)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(300) == 75, (first / "log").read_text()
    assert (first / "requeued").read_text() == "77"
    assert processes_of(first) == []
    done = metrics(run)
    assert 0 < len(done) < STEPS
    batch = start(again, run, STAND_IN, servers=1)
    assert batch.wait(300) == 0, (again / "log").read_text()
    assert processes_of(again) == []
    assert len(metrics(run)) == STEPS
    assert metrics(run)[: len(done)] == done


@pytest.mark.vllm
def test_a_job_with_a_real_server(start: Start, tmp_path: Path) -> None:
    job, run = tmp_path / "job", tmp_path / "run"
    batch = start(job, run, OURS, servers=1)
    assert batch.wait(500) == 0, (job / "log").read_text()
    assert processes_of(job) == []
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    assert summary["tokens"]["training"]["sampled"] > 0


@pytest.mark.slow
def test_servers_that_do_not_start_end_the_job(start: Start, tmp_path: Path) -> None:
    job = tmp_path / "job"
    batch = start(job, tmp_path / "run", "exit 3")
    assert batch.wait(60) == 1
    assert "the servers ended before they answered" in (job / "log").read_text()


@pytest.mark.slow
def test_a_node_of_skypilot(tmp_path: Path) -> None:
    """What the recipe's `run` does on a node of three GPUs: one serves, two train; nothing is left behind."""
    commands(tmp_path / "bin", STAND_IN)
    command, told = node_of_skypilot(tmp_path)
    told |= {"PORT": free_port(), "SERVERS": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "3"}
    told |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        command,
        env=os.environ | told | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(metrics(tmp_path / "run")) == STEPS
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", int(told["PORT"]) + 1)) != 0


def node_of_skypilot(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The recipe's command on one node, and what the environment says there."""
    recipe = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    told = recipe["envs"] | {"RUN": str(folder / "run"), "FLAGS": " ".join(FLAGS), "ADAPTERS": str(folder / "adapters")}
    told |= {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "127.0.0.1", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}
    return ["bash", "-c", recipe["run"]], told


def job_of_slurm(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The same of the batch script."""
    told = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "localhost", "SLURM_SUBMIT_DIR": str(ROOT)}
    return ["bash", str(CLUSTER / "slurm.sbatch"), str(folder / "run"), *FLAGS], told | {"SLURM_GPUS_ON_NODE": "8"}


def refused(command: list[str], told: dict[str, str], folder: Path, ours: str = "exit 9") -> str:
    """What it says, which is one line, where it ends with code 2 before anything is started or made. ours: what
    `backtrack-mrt` is, for the shell."""
    commands(folder / "bin", "exit 9")
    (folder / "bin" / "backtrack-mrt").write_text(f"#!/bin/sh\n{ours}\n")
    base = {name: value for name, value in os.environ.items() if name not in ("SERVERS", "RANKS", "PORT")}
    base |= {"JOB": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, env=base | told, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert [place.name for place in folder.iterdir()] == ["bin"]
    assert (done.stdout + done.stderr).count("\n") == 1
    return done.stdout + done.stderr


@pytest.mark.parametrize("recipe", [job_of_slurm, node_of_skypilot])
@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"SLURM_GPUS_ON_NODE": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "1"}, "GPUs of a node = '1': .* from 2 to"),
        ({"SERVERS": "0"}, "SERVERS = '0': .* from 1 to 7"),
        ({"SERVERS": "8"}, "SERVERS = '8': .* from 1 to 7"),
        ({"SERVERS": "two"}, "SERVERS = 'two': "),
        ({"SERVERS": "6", "RANKS": "3"}, "RANKS = '3': .* from 1 to 2"),
        ({"PORT": "65534"}, "PORT = '65534': .* from 1 to 65531"),
    ],
)
def test_numbers_that_a_node_cannot_have_are_refused(
    recipe: Callable[[Path], Any], told: dict[str, str], said: str, tmp_path: Path
) -> None:
    command, environment = recipe(tmp_path)
    assert re.match(f"error: {said}", refused(command, environment | told, tmp_path))


def test_a_forgotten_run_directory_is_told(tmp_path: Path) -> None:
    (*script, _run, algo, name), told = job_of_slurm(tmp_path)[0][:5], job_of_slurm(tmp_path)[1]
    assert refused([*script, algo, name], told, tmp_path).startswith("error: run directory = '--algo': it comes first.")


@pytest.mark.parametrize("recipe", [job_of_slurm, node_of_skypilot])
def test_mistakes_of_a_training_are_told_before_its_servers_start(
    recipe: Callable[[Path], Any], tmp_path: Path
) -> None:
    command, told = recipe(tmp_path)
    said = refused(command, told, tmp_path, 'echo "$WORLD_SIZE $*"; exit 2')
    assert said.startswith(f"4 train --output-dir {tmp_path}/run --algo mrt-rl ")
    assert said.count("http://") == 4
    assert said.endswith(" --dry-run\n")


@pytest.mark.parametrize("code", ["0", "1"])
def test_a_plan_that_does_not_fit_is_no_mistake(code: str, tmp_path: Path) -> None:
    commands(tmp_path / "bin", "exit 9")
    (tmp_path / "bin" / "backtrack-mrt").write_text(f"#!/bin/sh\nexit {code}\n")
    told = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PORT": "1"}
    subprocess.run([str(CLUSTER / "check.sh"), "4"], env=os.environ | told, check=True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["server.sh", "--algo"], "error: NUMBER = '--algo'"),
        (["server.sh", "2"], "error: NUMBER = '2': this node has 2 GPUs"),
        (["rank.sh"], "error: SERVERS = '2', RANKS = '1': this node has 2 GPUs"),
        (["wait_for.sh", "1"], "error: no server to wait for"),
    ],
)
def test_scripts_of_a_node_say_what_they_lack(command: list[str], said: str, tmp_path: Path) -> None:
    told = {"PORT": "1", "SERVERS": "2", "RANKS": "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    told |= {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    assert refused([str(CLUSTER / command[0]), *command[1:]], told, tmp_path).startswith(said)


def test_a_server_is_given_settings_only(tmp_path: Path) -> None:
    flags = ["--algo", "mrt-rl", "--compare", "grpo", "rise", "--seeds=0", "--accept-changes", "--data.seed", "1"]
    said = refused([str(CLUSTER / "server.sh"), "1", *flags], {"PORT": "7"}, tmp_path, 'echo "$*"; exit 2')
    assert said == "serve --port 9 --algo mrt-rl --data.seed 1\n"


def test_settings_of_skypilot_are_known() -> None:
    recipe = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    read_request(recipe["envs"]["FLAGS"].split())
    assert (ROOT / recipe["envs"]["LAUNCHER"]).is_file()
    assert "constraints.txt" in recipe["setup"]


def instructions(name: str) -> list[tuple[str, str]]:
    """Of a Dockerfile, each with its words."""
    text = re.sub(r"^#.*\n", "", (CLUSTER / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_an_image_has_what_it_copies_and_starts_what_there_is(name: str) -> None:
    found = instructions(name)
    words = dict(found)
    assert found[0][0] == "FROM"
    assert {*words} <= {"FROM", "RUN", "WORKDIR", "COPY", "ARG", "ENV", "ENTRYPOINT", "CMD"}
    copied: set[str] = set()
    for _, rest in (each for each in found if each[0] == "COPY"):
        *sources, _ = rest.split()
        assert all((ROOT / source).exists() for source in sources), rest
        copied |= set(sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {package.split(".")[0] for package in project["tool"]["setuptools"]["package-dir"].values()}
    assert copied >= {*wanted, "pyproject.toml", "README.md", *project["project"]["license-files"]}
    installs = [rest for word, rest in found if word == "RUN" and rest.startswith("pip install")]
    for line in installs:
        assert "--constraint .ci/constraints.txt" in line
        assert set(re.findall(r"\[(\w+)\]", line)) <= {*project["project"]["optional-dependencies"]}
    assert installs[-1].rstrip("'").split("[")[0].rstrip("'").endswith(".")
    (program, *ahead), behind = json.loads(words["ENTRYPOINT"]), json.loads(words["CMD"])
    assert (program, ahead) == ("backtrack-mrt", [])
    read_request(parser_of(behind[0]).parse(behind[1:]).settings)


def shown(path: Path) -> list[str]:
    """The command lines in a recipe's first comment."""
    text = re.sub(r"\\\n#\s*", "", path.read_text())
    return re.findall(r"^#   ((?:sbatch|sky|docker) .+)$", text, re.MULTILINE)


@pytest.mark.parametrize("path", [p for p in CLUSTER.iterdir() if shown(p)], ids=lambda p: p.name)
def test_a_recipe_tells_how_it_is_started(path: Path) -> None:
    for line in shown(path):
        words = shlex.split(line)
        named = [word for word in words if word.startswith("scripts/")]
        assert all(word == f"scripts/cluster/{path.name}" for word in named)
        if "train" in words:
            read_request(words[words.index("train") + 1 :])
        if words[0] == "sbatch":
            read_request(words[3:])
        for said in (word for word in words if word.startswith("FLAGS=")):
            read_request(shlex.split(said.removeprefix("FLAGS=")))
    assert path.name in {"slurm.sbatch", "skypilot.yaml", "Dockerfile", "Dockerfile.cpu"}
