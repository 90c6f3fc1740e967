"""Hostile inputs from a generator: none ends in a traceback, or in silence."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "dev"


def ended(n: int, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    monkeypatch.syspath_prepend(SCRIPTS)
    hostile = importlib.import_module("hostile")
    found = Counter[str]()
    for case, place in hostile.cases(n, seed, folder):
        how = hostile.outcome(case, place)
        assert how in ("refused", "taken", "failed"), f"{case.kind}: {case.told}: {how}"
        found[how] += 1
    return found


def test_one_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(9, 4, tmp_path, monkeypatch)["refused"] > 3


@pytest.mark.slow
def test_many_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many as HOSTILE says, which is more by hand."""
    ended(int(os.environ.get("HOSTILE", "90")), 5, tmp_path, monkeypatch)
