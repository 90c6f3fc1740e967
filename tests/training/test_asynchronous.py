"""Rollouts one update off, behind a server that answers like vLLM's."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from support.fake_vllm_server import FakeServer
from support.short_runs import assert_same_run, read_step, request

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import ModelSection, RunRequest
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.data.order import training_order
from backtrack_mrt.errors import Interrupted, UserError
from backtrack_mrt.policy.models import load_merged
from backtrack_mrt.policy.vllm.remote import ServerEngine
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.collector import Collected
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training import ahead as ahead_module
from backtrack_mrt.training.ahead import RolloutsAhead
from backtrack_mrt.training.safety import SafeTrainer
from backtrack_mrt.training.train import train
from backtrack_mrt.types import TokenLedger

pytestmark = pytest.mark.usefixtures("no_reports")

SMALL = (
    *("--training.steps", "3", "--training.problems_per_step", "2", "--training.group_size", "2"),
    *("--training.micro_batch_size", "2", "--protocol.max_revisions", "2"),
    *("--training.save_every", "1", "--training.keep_checkpoints", "99", "--data.eval_size", "1"),
    *(
        "--engine.max_rows",
        "1",
    ),  # or the order in which rows come to the server, and so its rounding, is left to chance
    *("--prover.calibration", "0", "--evaluation.frozen_prover", "false", "--evaluation.extra_revisions", "1"),
)
GAE = ("--algorithm.credit", "gae", "--evaluation.every", "2")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(load_merged(ModelSection()).eval()).running() as running:
        yield running


def ahead(folder: Path, server: FakeServer, *flags: str) -> RunRequest:
    served = ("--engine.type", "vllm", "--engine.server", server.url, "--training.asynchronous")
    return request(folder, *SMALL, *served, *flags)


def test_a_batch_is_drawn_and_valued_by_the_policy_of_one_update_before(tmp_path: Path, server: FakeServer) -> None:
    """The HF engine draws the same tokens and finds the same values with the adapters of the checkpoints."""
    asked = ahead(tmp_path, server)
    train(asked)
    metrics = RunDir(tmp_path).metrics()
    assert [row["sampling/lag"] for row in metrics] == [0, 1, 1]
    assert metrics[0]["sampling/sampling_logp_difference/max"] < 1e-4
    assert all(row["sampling/sampling_logp_difference/max"] > 0.01 for row in metrics[1:])
    assert all(row["sampling/importance_sampling_ratio/max"] > 1.01 for row in metrics[1:])
    assert all(row["time/wait"] >= 0 and row["time/rollout"] > 0 for row in metrics[1:])

    training = asked.config.training
    parts = assemble(request(tmp_path, *SMALL).config)
    order = training_order(load_problem_sets(asked.config.data, training.problems_per_step).train, asked.config)
    for update in (1, 2, 3):
        if update > 2:
            saved = tmp_path / "checkpoints" / f"step_{update - 2:06d}" / "adapter_model.safetensors"
            set_peft_model_state_dict(parts.model, load_file(saved))
        firsts = order[(update - 1) * training.problems_per_step :][: training.problems_per_step]
        problems = [problem for problem in firsts for _ in range(training.group_size)]
        seeds = trajectory_seeds(0, update, len(problems))
        drawn = parts.training_collector().collect(problems, seeds, training.temperature).scored
        for ours, theirs in zip(drawn, read_step(RunDir(tmp_path), update), strict=True):
            assert ours.trajectory.token_ids == theirs.trajectory.token_ids
            assert ours.values == pytest.approx(theirs.values, abs=1e-4)


def test_the_server_draws_while_the_policy_is_updated(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not let go on with the second batch before a micro-batch of the first update is through."""
    begun, updated = Event(), Event()
    begin, step, answer = RolloutsAhead.begin, SafeTrainer.training_step, server.answer

    def beginning(batches: RolloutsAhead, update: int, draw: Callable[[], Collected]) -> None:
        begun.set()
        begin(batches, update, draw)

    def training_step(trainer: SafeTrainer, *args: Any, **settings: Any) -> Any:
        loss = step(trainer, *args, **settings)
        updated.set()
        return loss

    def held(path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/v1/completions" and begun.is_set():
            assert updated.wait(60), "the update waits for the next batch"
        return answer(path, body)

    monkeypatch.setattr(RolloutsAhead, "begin", beginning)
    monkeypatch.setattr(SafeTrainer, "training_step", training_step)
    monkeypatch.setattr(server, "answer", held)
    train(ahead(tmp_path, server, "--training.steps", "2"))
    assert begun.is_set()


def test_a_budget_of_tokens_ends_it_and_nothing_is_drawn_in_vain(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, begin = list[int](), RolloutsAhead.begin
    monkeypatch.setattr(RolloutsAhead, "begin", lambda self, n, draw: begun.append(n) or begin(self, n, draw))
    found = train(ahead(tmp_path, server, "--training.sampled_tokens", "500"))
    steps = [row["tokens/step_sampled"] for row in RunDir(tmp_path).metrics()]
    assert sum(steps) == found.ledgers["training"].sampled == pytest.approx(500, abs=max(steps))
    assert begun == list(range(2, len(steps) + 1))
    assert len(steps) != 3


def resumed_after(whole: Path, step: int, asked: RunRequest) -> None:
    """Cut the run back to that checkpoint, and go on: the whole run comes out."""
    cut = Path(asked.config.run_path)
    shutil.copytree(whole, cut)
    (cut / "summary.json").unlink()
    for later in (path for path in (cut / "checkpoints").iterdir() if int(path.name[-6:]) > step):
        shutil.rmtree(later)
    train(asked)
    assert_same_run(whole, cut)


def test_a_checkpoint_keeps_the_batch_that_was_begun(tmp_path: Path, server: FakeServer) -> None:
    train(ahead(tmp_path / "whole", server, *GAE))
    record = json.loads((tmp_path / "whole" / "checkpoints" / "step_000002" / "run.json").read_text())
    (kept,) = record["begun"]
    assert len(kept["scored"]) == 4
    resumed_after(tmp_path / "whole", 2, ahead(tmp_path / "cut", server, *GAE, "--resume"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--training.steps", "5", *GAE),
        ("--training.sampled_tokens", "800", "--training.first_budget", "0.5"),
        ("--algorithm.credit", "prefix", "--algorithm.answer_weight", "0.5"),
    ],
)
def test_resume_after_every_step(tmp_path: Path, server: FakeServer, flags: tuple[str, ...]) -> None:
    train(ahead(tmp_path / "whole", server, *flags))
    steps = len(RunDir(tmp_path / "whole").metrics())
    assert steps >= 3
    for step in range(1, steps):
        resumed_after(tmp_path / "whole", step, ahead(tmp_path / f"cut_{step}", server, *flags, "--resume"))


@pytest.mark.parametrize(
    ("owner", "name", "call", "number", "code"),
    [
        (RolloutsAhead, "wait", 2, signal.SIGINT, 130),  # between updates: the next batch is under way
        pytest.param(SafeTrainer, "training_step", 4, signal.SIGTERM, 75, marks=pytest.mark.slow),  # in an update
        pytest.param(ServerEngine, "generate", 36, signal.SIGINT, 130, marks=pytest.mark.slow),  # ahead, after one
    ],
)
def test_a_signal_loses_nothing(
    tmp_path: Path,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    call: int,
    number: signal.Signals,
    code: int,
) -> None:
    flags = ("--training.save_every", "0")
    train(ahead(tmp_path / "whole", server, *flags))
    calls, method = 0, getattr(owner, name)

    def counted(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return method(*args, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, counted)
        with pytest.raises(Interrupted) as stop:
            train(ahead(tmp_path / "cut", server, *flags))
    assert stop.value.code == code
    (saved,) = (tmp_path / "cut" / "checkpoints").iterdir()
    assert json.loads((saved / "run.json").read_text())["begun"]
    train(ahead(tmp_path / "cut", server, *flags, "--resume"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_what_failed_is_not_kept_and_raised_where_it_is_wanted() -> None:
    def fails() -> Collected:
        raise UserError("engine.server", "http://host:8000", "cannot be reached", "Start it.")

    batches = RolloutsAhead()
    batches.begin(2, fails)
    batches.wait()
    assert batches.recorded(2) == {}
    with pytest.raises(UserError, match="cannot be reached"):
        batches.take(2)
    batches.close()


def test_what_is_kept_is_what_was_drawn() -> None:
    drawn = Collected([], TokenLedger(3, 2, 1), {"rollout": 1.5})
    batches, later = RolloutsAhead(), RolloutsAhead()
    batches.begin(2, lambda: drawn)
    later.restore(2, json.loads(json.dumps(batches.recorded(2))))
    assert batches.take(1) is None
    for found in (batches.take(2), later.take(2)):
        assert found is not None
        assert (found.collected, found.lag) == (drawn, 1)
        assert (set(found.seconds), found.seconds_ahead) == ({"wait"}, {"rollout": 1.5})
    assert later.take(3) is None
    batches.close()


def test_every_process_gets_its_own_back(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, later = RolloutsAhead(), RolloutsAhead()
    kept = {"scored": [], "ledger": asdict(TokenLedger(7)), "seconds": {}}
    monkeypatch.setattr(ahead_module, "gathered", lambda mine: [*mine, kept])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    batches.begin(2, lambda: Collected([], TokenLedger(3), {}))
    later.restore(2, batches.recorded(2))
    found = later.take(2)
    assert found is not None
    assert found.collected.ledger == TokenLedger(7)
    monkeypatch.setattr(ahead_module, "gathered", lambda mine: [*mine, None])  # those of the other one failed
    assert batches.recorded(2) == {}
    batches.close()


@pytest.mark.parametrize(
    ("flags", "reasons"),
    [
        ([], ["hf shares the weights"]),
        (["--engine.type", "vllm"], ["vllm the device"]),
        (["--algo", "star", "--engine.type", "vllm", "--engine.server", "http://host:8000"], ["star fits the policy"]),
        (["--algo", "rise"], ["rise fits the policy", "hf shares the weights"]),
    ],
)
def test_what_cannot_be_asynchronous_is_told(flags: list[str], reasons: list[str]) -> None:
    with pytest.raises(UserError) as told:
        read_request([*flags, "--training.asynchronous"])
    assert all(reason in str(told.value) for reason in ("training.asynchronous", *reasons))
