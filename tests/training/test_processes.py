"""Several processes: what the launchers' settings say, and that two processes train like one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from support.fake_vllm_server import FakeServer
from support.launched_runs import LAUNCHERS, SIZES, launched, run
from support.short_runs import read_step

from backtrack_mrt.cli.main import main
from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.policy.models import load_merged
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.directory import RunDir

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "kind"), [("ddp", "DistributedType.MULTI_GPU"), ("fsdp", "DistributedType.FSDP"), ("zero3", "DEEPSPEED")]
)
def test_accelerate_reads_the_launchers_settings(name: str, kind: str) -> None:
    config = load_config_from_file(str(LAUNCHERS / f"{name}.yaml"))
    assert str(config.distributed_type).endswith(kind)
    assert config.num_processes == 8
    assert config.deepspeed_config.get("zero_stage") == (3 if name == "zero3" else None)
    assert config.fsdp_config.get("fsdp_version") == (2 if name == "fsdp" else None)


@pytest.mark.parametrize("length", [0, 1, 7, 8])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch, length: int, count: int) -> None:
    rows = list(range(length))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    shared = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        shared.append(rows[processes.share(length)])
    assert [row for share in shared for row in share] == rows
    assert max(map(len, shared)) - min(map(len, shared)) <= 1


def test_alone_everything_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.is_main()
    assert processes.gathered([1, 2]) == [1, 2]
    processes.wait()
    processes.leave()


def test_what_is_done_once_is_done_by_the_first_and_waited_for_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    store, did, threads = torch.distributed.HashStore(), list[str](), ThreadPoolExecutor(3)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(processes, "_store", lambda: store)

    def work(name: str) -> None:
        time.sleep(0.05)
        did.append(name)

    def waited(name: str) -> list[str]:
        processes.once(name, lambda: work(name))
        return list(did)

    assert list(threads.map(waited, ["a", "a", "a"])) == [["a"]] * 3
    processes.once("b", lambda: work("b"))
    assert did == ["a", "b"]

    def broken() -> None:
        raise UserError("engine.server", "http://a", "cannot be reached", "Start it.")

    failures = [threads.submit(processes.once, "c", broken).exception(10) for _ in range(3)]
    assert sorted(type(failure).__name__ for failure in failures) == ["RunError", "RunError", "UserError"]


@pytest.mark.parametrize(
    ("said", "told"), [("[pair.cc:547] Connection closed by peer [127.0.0.1]:1", RunError), ("else", RuntimeError)]
)
def test_a_lost_process_is_told(said: str, told: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(told), processes.told_when_one_is_gone():
        raise RuntimeError(said)


@pytest.mark.parametrize("own", ["0", "1"])
def test_the_main_process_tells_first(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", own)
    with pytest.raises(UserError, match="no such command"):
        main(["nosuch"])
    assert len(waited) == int(own)


@pytest.mark.parametrize("told", [{"RANK": "1"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}])
def test_a_process_beyond_all_there_are_is_told(told: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK = "):
        processes.is_main()


@pytest.mark.slow
def test_a_process_whose_other_one_was_killed_ends_with_one_line_and_code_1(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in ("0", "1"):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "backtrack_mrt", "train", *SIZES, "--training.steps", "99"]
        command += ["--output-dir", str(tmp_path / "run")]
        environment = os.environ | told | {"OMP_NUM_THREADS": "1"}
        with (tmp_path / f"err{rank}").open("w") as err:
            ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=err))
    try:
        while not RunDir(tmp_path / "run").metrics():
            assert all(rank.poll() is None for rank in ranks), (tmp_path / "err0").read_text()
            time.sleep(0.2)
        ranks[1].kill()
        assert ranks[0].wait(120) == 1
    finally:
        for rank in ranks:
            rank.kill()
    said = (tmp_path / "err0").read_text()
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if line.startswith("error: another process of this run")]) == 1


PREFIX = ("--algo", "mrt-rl", "--algorithm.credit", "prefix", "--algorithm.answer_weight", "0.5")
PREFIX += ("--evaluation.forced_answers", "2")
VOTED = ("--algo", "mrt-rl", "--algorithm.answer_weight", "0", "--evaluation.forced_answers", "2")
AHEAD = (*VOTED, "--training.asynchronous")
WHOLE = (*VOTED, "--model.full_finetuning", "true", "--training.learning_rate", "1e-5")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run of one process."""
    return run(tmp_path_factory.mktemp("alone") / "one", flags=VOTED)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Of the embedded model."""
    with FakeServer(load_merged(ModelSection()).eval(), takes_weights=True).running() as running:
        yield running


def assert_same_adapter(one: RunDir, two: RunDir, most: float = 0.01) -> None:
    """But for rounding, at most so small a part of what was learned."""
    ours, theirs = (load_file(r.model / "adapter_model.safetensors") for r in (one, two))
    learned = torch.cat([tensor.flatten() for name, tensor in ours.items() if "lora_B" in name])
    apart = torch.cat([(ours[name] - theirs[name]).flatten() for name in ours])
    assert float(apart.norm()) < most * float(learned.norm())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("ddp", ["--algo", "rise"]),
        # By the modules, which pieces need: by compiled code one process rounds otherwise, and AdamW makes it larger.
        ("fsdp", ["--algo", "star", "--algorithm.iterations", "2", "--engine.compiled", "false"]),
        ("fsdp", ["--algo", "sft", "--model.full_finetuning", "true"]),
        ("zero3", ["--algo", "sft", "--model.full_finetuning", "true"]),
        ("zero3, cut", ["--algo", "star", "--algorithm.iterations", "2", "--engine.compiled", "false"]),
    ],
)
def test_two_processes_fit_like_one(name: str, flags: list[str], tmp_path: Path) -> None:
    """Cross-entropy: the same rows, loss and gradient in every update, also in a last one that is not full."""
    even = ["--training.problems_per_step", "4", "--training.micro_batch_size", "8"]
    plain = [*even, "--prover.estimator", "none", *flags]
    one = run(tmp_path / "one", flags=plain)
    two = run(tmp_path / "two", *launched(name, tmp_path), flags=plain)
    rows: list[Any] = [one.metrics(), two.metrics()]
    assert len(rows[0]) == len(rows[1]) > 1
    for ours, theirs in zip(*rows, strict=True):
        for metric in ours.keys() & {"loss", "grad_norm", "outcome", "kept", "learning_rate"}:
            assert theirs[metric] == pytest.approx(ours[metric], rel=1e-3, abs=1e-5), metric
    ours, theirs = (json.loads(r.summary_path.read_text()) for r in (one, two))
    assert ours["tokens"] == theirs["tokens"]
    assert ours["trained"]["accuracy"] == theirs["trained"]["accuracy"]
    if "--model.full_finetuning" not in flags:
        assert_same_adapter(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "served"),
    [
        ("ddp", VOTED, False),
        ("fsdp", VOTED, False),
        ("fsdp", WHOLE, False),
        ("zero3", VOTED, False),
        ("zero3, cut", WHOLE, False),
        ("ddp", PREFIX, False),
        ("ddp", VOTED, True),
        ("fsdp", VOTED, True),
        ("zero3, cut", VOTED, True),
        ("fsdp", AHEAD, True),
        ("fsdp", WHOLE, True),
    ],
)
def test_two_processes_train_like_one(
    name: str, flags: Sequence[str], served: bool, tmp_path: Path, one: RunDir, request: pytest.FixtureRequest
) -> None:
    """The same trajectories, advantages, tokens and metrics, and the same adapter but for rounding; so also where
    another process samples, behind a server that answers like vLLM's; it gets each adapter once."""
    server = request.getfixturevalue("server") if served else None
    asked = ("--engine.type", "vllm", "--engine.server", server.url) if server else ()
    one = one if flags is VOTED else run(tmp_path / "one", flags=[*flags, *asked])
    before = len(server.loaded) if server else 0
    two = run(tmp_path / "two", *launched(name, tmp_path), flags=[*flags, *asked])
    if server:
        loaded = server.loaded[before:]
        assert 2 <= len(loaded) == len(set(loaded)) <= 3  # the base's, and of updates whose policy was asked
        assert list(server.engines) == ["base", *loaded[-1:] * (flags is WHOLE)]  # no adapter is left
    for step in (1, 2):
        alone = torch.load(one.path / f"advantages_{step}_0.pt")
        shared = [row for rank in (0, 1) for row in torch.load(two.path / f"advantages_{step}_{rank}.pt")]
        assert any(row.abs().max() > 0.1 for row in alone)
        for row, same in zip(alone, shared, strict=True):
            torch.testing.assert_close(row, same, rtol=1e-3, atol=1e-4)
        for ours, theirs in zip(*(read_step(r, step) for r in (one, two)), strict=True):
            assert ours.trajectory.token_ids == theirs.trajectory.token_ids
            assert ours.progress == pytest.approx(theirs.progress, abs=1e-4)
    rows: list[Any] = [one.metrics(), two.metrics()]
    for ours, theirs in zip(*rows, strict=True):
        names = {name for name in ours if not name.startswith("time") and name not in ("step_time", "entropy")}
        assert names >= {"tokens/step_sampled", "tokens/step_prover", "progress/turn_0", "loss", "grad_norm"}
        for name in names:  # V_0 of a group across two processes is asked for twice
            tolerance = 0.05 if name == "tokens/step_prover" else 1e-3
            assert theirs[name] == pytest.approx(ours[name], rel=tolerance, abs=1e-4), name
    if flags is not WHOLE:
        assert_same_adapter(one, two, most=0.05 if flags is AHEAD else 0.01)  # importance weights are rounded, too
    ours, theirs = (json.loads(r.summary_path.read_text()) for r in (one, two))
    assert ours["tokens"]["training"]["sampled"] == theirs["tokens"]["training"]["sampled"]
    assert ours["tokens"]["evaluation"] == theirs["tokens"]["evaluation"]
    for name in ("base", "trained"):
        assert ours[name]["accuracy"] == theirs[name]["accuracy"]
        voted = [summary[name]["extras"]["majority_at_turn"] for summary in (ours, theirs)]
        assert voted[0] == voted[1] != []


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["mrt-rl", "grpo"])
def test_two_processes_resume_bit_for_bit(tmp_path: Path, algo: str) -> None:
    """After every step of 12, and after a signal to one of them."""
    done = subprocess.run(
        [sys.executable, "-m", "support.two_ranks", algo, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.splitlines() == [f"{algo}: resumed after 11 steps", f"{algo}: stopped and resumed"]
