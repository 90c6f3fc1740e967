"""Protocols dropped into envs/ or named by an entry point are found; every mistake has its sentence."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import backtrack_mrt.envs
from backtrack_mrt import plugins
from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol

PACKAGE = "backtrack_mrt.envs"
TOY = """
from typing import ClassVar

from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import Parsed, StopReason, TurnSpec

class Toy(EpisodeProtocol):
    max_turns: ClassVar[int] = 1

    def next_turn(self, problem, turns):
        return StopReason.FINISHED if turns else TurnSpec("attempt", 8)

    def parse(self, phase, text, turns):
        return Parsed(answer=text)
"""


@pytest.fixture
def drop(tmp_path: Path, monkeypatch):
    """Write a protocol file into envs/ (a second directory of the same package)."""
    monkeypatch.setattr(backtrack_mrt.envs, "__path__", [*backtrack_mrt.envs.__path__, str(tmp_path)])
    written = []

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        written.append(f"{PACKAGE}.{name}")

    yield write
    for module in written:
        sys.modules.pop(module, None)


@pytest.fixture
def entry(monkeypatch):
    """Install entry points name → value."""

    def install(**values: str) -> None:
        found = [EntryPoint(name, value, PACKAGE) for name, value in values.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == PACKAGE else [])

    return install


def load(name: str) -> type[EpisodeProtocol]:
    return plugins.load(PACKAGE, name, EpisodeProtocol, "env")


def test_the_shipped_protocols_are_found():
    assert {"backtrack", "single"} <= set(plugins.names(PACKAGE))
    assert load("backtrack").__name__ == "Backtrack"


def test_a_dropped_file_is_a_protocol(drop):
    drop("my_toy", TOY)
    assert "my-toy" in plugins.names(PACKAGE)
    assert load("my-toy") is load("my_toy")
    assert load("my-toy")().max_turns == 1


def test_an_entry_point_is_a_protocol(entry):
    entry(third_party="backtrack_mrt.envs.single:Single")
    assert "third-party" in plugins.names(PACKAGE)
    assert load("third-party").__name__ == "Single"


def test_an_unknown_name_suggests_the_closest():
    with pytest.raises(UserError, match="Did you mean 'backtrack'") as caught:
        load("backtrak")
    assert "single" in caught.value.remedy


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1", "exactly one EpisodeProtocol, found: none"),
        (TOY + "class Other(Toy):\n    pass\n", "exactly one EpisodeProtocol, found: Toy, Other"),
        ("from backtrack_mrt.envs.single import Single\n", "found: none"),
        (TOY.replace("def parse", "def prase"), "Toy does not define parse"),
        ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("x = 1\n1 / 0", r"cannot be imported: ZeroDivisionError: division by zero\. See .*my_toy\.py, line 2\."),
    ],
)
def test_a_file_that_is_no_protocol_is_refused(drop, source, reason):
    drop("my_toy", source)
    with pytest.raises(UserError, match=reason):
        load("my-toy")


def test_an_alias_is_no_second_protocol(drop):
    drop("my_toy", TOY + "Alias = Toy\n")
    assert load("my-toy").__name__ == "Toy"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bad", "backtrack_mrt.types:Problem", "its entry point is not a EpisodeProtocol"),
        ("bad", "no_such_module:Protocol", "cannot be imported: ModuleNotFoundError"),
        ("bad", "backtrack_mrt.types:Missing", "cannot be imported: AttributeError"),
        ("single", "backtrack_mrt.envs.backtrack:Backtrack", "claimed by entry point .* and module"),
    ],
)
def test_an_entry_point_that_is_no_protocol_is_refused(entry, name, value, reason):
    entry(**{name: value})
    with pytest.raises(UserError, match=reason):
        load(name)
