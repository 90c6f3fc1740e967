"""A grader that cannot work on this system says so before a model is loaded."""

from __future__ import annotations

import sys

import pytest

import backtrack_mrt as bt
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts import assembly


def test_programs_are_refused_where_they_cannot_be_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "load_tokenizer", lambda *_: pytest.fail("a model is loaded"))
    monkeypatch.setattr(sys, "platform", "darwin")
    config = bt.load_config("tiny.yaml", algo="mrt-rl", grader="python")
    with pytest.raises(UserError, match=r"darwin on .* has no such confinement"):
        assembly.assemble(config)
