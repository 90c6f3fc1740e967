"""A library that few runs need is there, and is read when it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtrack_mrt.runs.environment import LateModule, import_late


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of one package `seldom`, which leaves a file behind when it is executed."""
    package = tmp_path / "seldom"
    package.mkdir()
    text = "from pathlib import Path\nPath(__file__).with_name('read').touch()\nANSWER = 42\n"
    (package / "__init__.py").write_text(text)
    (package / "part.py").write_text("from seldom import ANSWER\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in ("seldom", "seldom.part"):
        sys.modules.pop(name, None)


def test_it_is_executed_when_it_is_used_and_once(library: Path) -> None:
    import_late("seldom")
    import seldom

    inspect.getmodule(inspect.currentframe())  # looks through all modules
    assert seldom.__spec__.name == "seldom"
    assert not (library / "read").exists()
    assert seldom.ANSWER == 42
    assert (library / "read").exists()
    assert type(sys.modules["seldom"]) is not LateModule
    (library / "read").unlink()
    import_late("seldom")
    from seldom import ANSWER, part

    assert ANSWER == part.ANSWER == 42
    assert not (library / "read").exists()
    with pytest.raises(AttributeError, match="QUESTION"):
        _ = seldom.QUESTION


@pytest.mark.usefixtures("library")
def test_a_part_of_it_can_be_imported_first() -> None:
    import_late("seldom")
    from seldom.part import ANSWER

    assert ANSWER == 42


def test_what_is_not_installed_stays_so() -> None:
    import_late("no_such_library")
    assert "no_such_library" not in sys.modules


@pytest.mark.slow  # bitsandbytes is installed by `make test-marked`
def test_a_training_starts_without_what_only_quantised_models_need() -> None:
    pytest.importorskip("bitsandbytes")
    code = """import sys
from backtrack_mrt.runs import environment
environment.prepare()
import backtrack_mrt.rollouts.assembly
assert "bitsandbytes" in sys.modules and "bitsandbytes.functional" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
