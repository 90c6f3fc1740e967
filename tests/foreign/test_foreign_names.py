"""Environments of other libraries by their names, without the libraries."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from backtrack_mrt import plugins
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.foreign.plugins import Standing
from backtrack_mrt.foreign.source import LIBRARIES
from backtrack_mrt.grading.markers import MESSAGE
from backtrack_mrt.types import Problem


def test_names_are_told_from_paths_and_from_plug_ins() -> None:
    assert tuple(LIBRARIES) == plugins.FOREIGN
    assert plugins.is_foreign("verifiers:wordle")
    assert not plugins.is_path("openenv:a.b:C")
    assert plugins.label("openenv:a.b:C") == "openenv-a.b-C"
    for name in ("verifiers", "backtrack", "./verifiers.py", "other:wordle"):
        assert not plugins.is_foreign(name)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_missing_is_named_with_its_extra(library: str) -> None:
    if find_spec(library):
        pytest.skip(f"{library} is installed")
    with pytest.raises(UserError, match=rf"{library} is not installed .*backtrack-mrt\[{library}\]"):
        read_request(["--env", f"{library}:anything"])


def test_a_whole_message_is_an_answer() -> None:
    assert [MESSAGE.find(text) for text in (" two words\n", "", "\n")] == ["two words", None, None]
    assert MESSAGE.end_in("two words") is None


def test_a_standing_problem_is_another_one() -> None:
    problem = Problem("verifiers:x/0", "q", "a", "verifiers:x")
    one, other = (Standing("verifiers:x/0", "q", "a", "verifiers:x", replies=replies) for replies in (("a",), ("b",)))
    assert len({problem, one, other}) == 3
