"""A run looks up no name and calls nobody; threads that wait leave room; the user's own settings stay."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import logging
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.short_runs import SHORT

from backtrack_mrt.runs import environment

OFF = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "CI")
WATCHED = """
import socket, sys
asked = []
def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") or (
        event == "socket.connect" and args[0].family != socket.AF_UNIX
    ):
        asked.append(f"{event} {args[1:] if event == 'socket.connect' else args}")
sys.addaudithook(watch)
from backtrack_mrt.cli.main import run
try:
    run(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
assert not asked, asked
"""


@pytest.mark.slow
def test_a_default_run_and_an_evaluation_look_up_no_name(tmp_path: Path) -> None:
    """In a process of its own, as on a machine where nobody has switched anything off."""
    surroundings = {name: value for name, value in os.environ.items() if name not in OFF}
    surroundings["HF_HOME"] = str(tmp_path / "hub")
    for line in (["train", "--output-dir", "run", *SHORT], ["evaluate", "run", "--data.eval_size", "8"]):
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *line], cwd=tmp_path, env=surroundings, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/home/someone"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)


@pytest.mark.usefixtures("nothing_set")
def test_reports_of_use_are_switched_off_also_where_the_library_is_imported() -> None:
    from huggingface_hub import constants

    environment.prepare()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert constants.HF_HUB_DISABLE_TELEMETRY


@pytest.mark.usefixtures("nothing_set")
def test_waiting_threads_sleep_soon() -> None:
    environment.prepare()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000  # GNU's own count


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "DISABLE_TELEMETRY"])
def test_what_the_user_has_set_stays(name: str) -> None:
    os.environ[name] = "mine"
    environment.prepare()
    assert os.environ[name] == "mine"
    other = "HF_HUB_DISABLE_TELEMETRY" if name == "DISABLE_TELEMETRY" else "GOMP_SPINCOUNT"
    assert os.environ.get(other) in (None, "mine")


@pytest.mark.usefixtures("nothing_set")
def test_garbage_is_looked_for_seldom_unless_the_user_says_how_often() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)  # Python's own
        environment.prepare()
        assert gc.get_threshold()[0] > 10_000
        gc.set_threshold(500, 5, 5)
        environment.prepare()
        assert gc.get_threshold() == (500, 5, 5)
    finally:
        gc.set_threshold(*before)


def test_while_libraries_are_imported_packages_are_listed_once_and_garbage_stays() -> None:
    listing = importlib.metadata.packages_distributions
    with environment.importing():
        assert not gc.isenabled()
        assert importlib.metadata.packages_distributions() is importlib.metadata.packages_distributions()
    assert gc.isenabled()
    assert importlib.metadata.packages_distributions is listing
    gc.disable()
    try:
        with environment.importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_has_been_imported_is_frozen_once_and_nothing_that_comes_later() -> None:
    environment.settle()
    frozen = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    environment.settle()
    assert frozen > 0
    assert gc.get_freeze_count() <= frozen
    assert gc.is_tracked(kept)


def test_warnings_about_nothing_are_not_shown_and_others_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        environment.prepare()
        warnings.warn(f"{environment._TRL_ON_VLLM} from 0.22.0 to 0.31.0. You have", stacklevel=1)
        warnings.warn("TRL says something else", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["TRL says something else"]
    for name, said in environment._OF_NO_USE.items():
        log = logging.getLogger(name)
        monkeypatch.setattr(log, "propagate", True)  # DeepSpeed turns that off for its own
        log.warning(f"{said} from kernels-community: %s.", "No module named 'kernels'")
        log.warning("something else")
    assert set(caplog.messages) == {"something else"}


def test_what_is_silenced_is_what_the_libraries_say() -> None:
    """Where they are installed: their source, since what they say at import was said long ago."""
    for library, file, said in (
        ("bitsandbytes", "backends/cpu/ops.py", environment._OF_NO_USE["bitsandbytes.backends.cpu.ops"]),
        ("deepspeed", "accelerator/real_accelerator.py", environment._OF_NO_USE["DeepSpeed"]),
        ("trl", "import_utils.py", environment._TRL_ON_VLLM),
    ):
        if (spec := find_spec(library)) and spec.origin:
            assert said in (Path(spec.origin).parent / file).read_text()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another library than glibc")
@pytest.mark.parametrize(("users", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_kept_for_what_comes_next_unless_the_user_says_otherwise(
    users: dict[str, str], kept: bool
) -> None:
    code = """import resource
from backtrack_mrt.runs import environment
environment.prepare()
bytearray(100 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(100 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    unset = {name: value for name, value in os.environ.items() if name not in environment._OF_MALLOC}
    done = subprocess.run([sys.executable, "-c", code], env=unset | users, capture_output=True, check=True)
    assert (int(done.stdout) < 100) is kept  # fresh pages


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another library than glibc, or an old one")
@pytest.mark.parametrize(("megabytes", "kept"), [(400, True), (1300, False)])
def test_much_freed_memory_is_given_back_for_something_else(megabytes: int, kept: bool) -> None:
    code = f"""
from backtrack_mrt.runs import environment
environment.prepare()
held = [bytearray(2**27) for _ in range({megabytes} // 128)]
last = bytearray(2**20)
del held
def resident():
    return int(open("/proc/self/statm").read().split()[1])
before = resident()
environment.give_back()
print(before - resident())
"""
    unset = {name: value for name, value in os.environ.items() if name not in environment._OF_MALLOC}
    done = subprocess.run([sys.executable, "-c", code], env=unset, capture_output=True, check=True)
    assert (int(done.stdout) < 100) is kept  # pages


def test_importing_changes_nothing() -> None:
    code = """import gc, os, sys
before = dict(os.environ), gc.get_threshold()
import backtrack_mrt.cli.main, backtrack_mrt.cli.api, backtrack_mrt.runs.environment
assert (dict(os.environ), gc.get_threshold()) == before
assert "bitsandbytes" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
