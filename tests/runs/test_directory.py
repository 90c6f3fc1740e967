"""The run directory: what is written comes back, nothing is overwritten by accident, a resumed run is the same run."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.short_runs import read_step

from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.config import Config, EngineSection, TrainingSection
from backtrack_mrt.config.files import read_config
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.records import as_record, from_record, read_trajectories
from backtrack_mrt.types import (
    Completion,
    Finish,
    Parsed,
    Problem,
    Scored,
    StopReason,
    TokenLedger,
    Trajectory,
    Turn,
    TurnSpec,
)


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(algorithm=MrtRl(alpha=2), protocol=Backtrack(), output_dir=str(tmp_path / "run"))


def scored_trajectory() -> Scored:
    attempt = Turn(
        TurnSpec("attempt", 99),
        "## Step 1: ½\n\\boxed{1}",
        Parsed(answer="1", steps=("## Step 1: ½",)),
        (),
        Completion((5, 6, 2), (-0.1, -1 / 3, -2e-9), Finish.STOP),
    )
    detect = Turn(
        TurnSpec("detect", 7, {"next": "1"}),
        "?",
        None,
        (3, 4),
        Completion((9,), (-1.0,), Finish.LENGTH),
        "too_long",
    )
    problem = Problem("p/1", "What?", "1", "here")
    trajectory = Trajectory(problem, (1, 2), (attempt, detect), StopReason.VIOLATION, "1", 0.0, "right")
    return Scored(trajectory, np.array([0.1, 1 / 3, 0.0]), np.array([1 / 7, -0.5]))


def same(one: Scored, other: Scored) -> bool:
    pairs = ((one.values, other.values), (one.weights, other.weights))
    numbers = all((a is None) == (b is None) and (a is None or np.array_equal(a, b, equal_nan=True)) for a, b in pairs)
    return numbers and repr(one.trajectory) == repr(other.trajectory)  # repr: NaN is not equal to itself


def test_a_run_directory_from_start_to_end(config):
    run = RunDir.create(config)
    assert read_config(str(run.config_path)) == config
    run.log(1, {"reward": 0.5, "loss": math.nan, "grad_norm": math.inf, "tokens": np.int64(7), "v": np.float32(0.25)})
    run.log(2, {"reward": 1})
    assert "NaN" not in run.metrics_path.read_text()
    first = {"step": 1, "reward": 0.5, "loss": None, "grad_norm": None, "tokens": 7, "v": 0.25}
    assert run.metrics() == [first, {"step": 2, "reward": 1}]
    run.save_trajectories(1, [scored_trajectory()])
    assert same(read_step(run, 1)[0], scored_trajectory())
    run.save(
        "summary.json",
        {"regret": math.nan, "interval": (0.1, np.float64(0.2)), "tokens": TokenLedger(1, 2, 3).as_json()},
    )
    assert json.loads(run.summary_path.read_text()) == {
        "regret": None,
        "interval": [0.1, 0.2],
        "tokens": {"sampled": 1, "env": 2, "prover": 3, "total": 6},
    }


def test_check_writes_nothing(config):
    RunDir.check(config)
    assert not config.run_path.exists()


def test_a_directory_in_use_is_refused(config):
    RunDir.create(config)
    with pytest.raises(
        UserError, match=r"--output-dir = .* is in use\. Continue it with --resume, replace it with --over"
    ):
        RunDir.check(config)


def test_overwrite_deletes_what_a_run_wrote_and_says_so(config, capsys):
    run = RunDir.create(config)
    run.log(1, {"reward": 1})
    run.save_trajectories(1, [])
    (run.path / "notes.txt").write_text("mine")
    RunDir.check(config, "overwrite")
    assert run.metrics()
    RunDir.create(config, "overwrite")
    assert "deleting config.yaml, metrics.jsonl, trajectories, checkpoints" in capsys.readouterr().out
    assert run.metrics() == []
    assert not list(run.trajectories.iterdir())
    assert (run.path / "notes.txt").read_text() == "mine"


def test_overwrite_leaves_other_directories_alone(config):
    config.run_path.mkdir()
    (config.run_path / "config.yaml").write_text("thesis: true")
    with pytest.raises(UserError, match="holds no run, so --overwrite will not delete"):
        RunDir.create(config, "overwrite")


def test_overwrite_does_not_follow_links(config, tmp_path):
    run = RunDir.create(config)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "weights").write_text("precious")
    run.checkpoints.rmdir()
    run.checkpoints.symlink_to(elsewhere)
    RunDir.create(config, "overwrite")
    assert (elsewhere / "weights").read_text() == "precious"


def test_resume_wants_the_same_config(config, tmp_path, capsys):
    run = RunDir.create(config)
    run.log(1, {"reward": 1})
    assert RunDir.create(config, "resume").metrics() == [{"step": 1, "reward": 1}]
    changed = config.model_copy(update={"training": TrainingSection(steps=99, kl=0.1)})
    with pytest.raises(UserError, match=r"training\.steps: 32 → 99; training\.kl: 0\.0 → 0\.1.*Resume with --config"):
        RunDir.check(changed, "resume")
    RunDir.check(changed, "resume", accept_changes=True)
    RunDir.create(changed, "resume", accept_changes=True)
    assert capsys.readouterr().out.count("resuming") == 1  # told when it is looked at, not again when it is written
    RunDir.create(config, "resume", accept_changes=True)
    run.path.rename(tmp_path / "moved")
    RunDir.check(config.model_copy(update={"output_dir": str(tmp_path / "moved")}), "resume")


def test_servers_may_have_moved_but_not_come_or_gone(config, tmp_path):
    at = [
        config.model_copy(update={"engine": EngineSection(type="vllm", server=server, adapters=adapters)})
        for server, adapters in ((["http://a:1", "http://b:1"], "/one"), (["http://c:1"], "/two"), (None, None))
    ]
    RunDir.create(at[0])
    RunDir.check(at[1], "resume")
    with pytest.raises(UserError, match=r"engine\.server: \['http://a:1', 'http://b:1'\] → None"):
        RunDir.check(at[2], "resume")


def test_nothing_to_resume(config):
    with pytest.raises(UserError, match="To begin one, leave --resume out"):
        RunDir.check(config, "resume")


def test_a_path_that_cannot_be_a_directory(config, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path, reason in ((file, "is a file"), (file / "below", "cannot be written")):
        with pytest.raises(UserError, match=reason):
            RunDir.create(config.model_copy(update={"output_dir": str(path)}))


def test_rewind_forgets_later_steps_and_torn_lines(config):
    run = RunDir.create(config)
    for step in (1, 2, 3):
        run.log(step, {"reward": step})
        run.save_trajectories(step, [])
    with run.metrics_path.open("a") as file:
        file.write('{"step": 4, "rew')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    run.rewind(2)
    run.log(3, {"reward": 0})
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    assert [path.name for path in sorted(run.trajectories.iterdir())] == ["step_000001.jsonl", "step_000002.jsonl"]


@pytest.mark.parametrize("damaged", ['{"step": 2, "rew', "", "\0" * 40, '{"v": 1}', '{"step": "2"}', "[2]", "\xff"])
def test_a_damaged_line_inside_is_named(config, damaged):
    """What a bad disk leaves in the middle of a file; a blank line costs nothing."""
    run = RunDir.create(config)
    run.log(1, {"reward": 1})
    with run.metrics_path.open("a", encoding="latin-1") as file:
        file.write(damaged + "\n")
    run.log(3, {"reward": 3})
    if not damaged:
        assert [line["step"] for line in run.metrics()] == [1, 3]
        return
    with pytest.raises(UserError, match=r"metrics\.jsonl:2': .*Delete this line") as refusal:
        run.rewind(1)
    assert "\n" not in str(refusal.value)


def test_a_trajectory_not_graded_yet(tmp_path):
    whole = scored_trajectory()
    bare = Scored(replace(whole.trajectory, stop=None, outcome=math.nan, verdict=None, answer=None))
    record = json.loads(json.dumps(as_record(bare), allow_nan=False))
    assert record["outcome"] is None
    assert same(from_record(record), bare)


NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan)
LOGPROBS = st.floats(-1e6, 0) | st.just(math.nan)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(
    ids=st.lists(st.tuples(st.integers(0, 200_000), LOGPROBS), max_size=5),
    parsed=st.none() | st.builds(Parsed, TEXT | st.none(), st.lists(TEXT).map(tuple), st.none() | st.integers(0, 9)),
    text=TEXT,
    finish=st.sampled_from(Finish),
    values=st.tuples(NUMBERS, NUMBERS) | st.none(),
)
def test_any_trajectory_comes_back(ids, parsed, text, finish, values):
    tokens, logprobs = tuple(zip(*ids, strict=True)) or ((), ())
    turn = Turn(TurnSpec("own_phase", 3, {"a": text}), text, parsed, (1,), Completion(tokens, logprobs, finish))
    trajectory = Trajectory(Problem(text, text, text), (), (turn,))
    scored = Scored(trajectory, None if values is None else np.array(values))
    assert same(from_record(json.loads(json.dumps(as_record(scored), allow_nan=False))), scored)


def test_a_file_that_holds_no_trajectories(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"problem": {}}\n')
    with pytest.raises(UserError, match=r"t\.jsonl:1': not a trajectory"):
        read_trajectories(path)


def test_only_the_main_process_writes(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    run = RunDir.create(config)
    assert not config.run_path.exists()
    monkeypatch.setenv("RANK", "0")
    RunDir.create(config)
    before = {path: path.read_bytes() for path in config.run_path.rglob("*") if path.is_file()}
    monkeypatch.setenv("RANK", "1")
    with run.locked():
        run.log(1, {"reward": 1})
        run.log_evaluation(1, "base", {"ledger": {}})
        run.save_trajectories(1, [scored_trajectory()])
        run.save("summary.json", {})
        run.take_over(run.config_path)
        run.rewind(0)
    assert {path: path.read_bytes() for path in config.run_path.rglob("*") if path.is_file()} == before


def test_a_run_that_was_ended_before_its_config_was_there_can_be_started(config, tmp_path):
    folder = tmp_path / "run"
    for name in ("trajectories", "checkpoints", "plugins"):
        (folder / name).mkdir(parents=True)
    (folder / "lock").write_text("process 1")
    (folder / "plugins" / "mine.py").write_text("")
    (folder / ".unfinished-config.yaml").write_text("algo: mrt")
    with pytest.raises(UserError, match="To begin one, leave --resume out"):
        RunDir.check(config, "resume")
    RunDir.create(config)
    with pytest.raises(UserError, match="is in use"):
        RunDir.check(config)
    RunDir.create(config, "resume")


def test_a_run_that_was_ended_behind_its_config_can_be_resumed(config, tmp_path):
    RunDir.create(config)
    for name in ("trajectories", "checkpoints"):
        (tmp_path / "run" / name).rmdir()
    RunDir.create(config, "resume")
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_a_users_own_folder_is_not_deleted(config, tmp_path):
    (tmp_path / "run" / "plugins").mkdir(parents=True)
    (tmp_path / "run" / "plugins" / "theirs.py").write_text("")
    RunDir.create(config, "overwrite")
    assert (tmp_path / "run" / "plugins" / "theirs.py").exists()
