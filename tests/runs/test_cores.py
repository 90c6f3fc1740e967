"""How many cores other programs leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtrack_mrt.runs import cores
from backtrack_mrt.runs.cores import Cores, others_seconds

STAT = "cpu  1000 20 300 90000 4000 5 60 700 900 10\ncpu0 500 10 150 45000 2000 2 30 350 450 5\n"


@pytest.mark.parametrize(
    ("all_cores", "others", "free"),
    [(2, 0.0, 2), (2, 0.3, 2), (2, 1.0, 1), (2, 1.3, 1), (2, 2.0, 1), (16, 3.2, 13), (64, 70.0, 1), (1, 0.0, 1)],
)
def test_free_is_what_others_leave(all_cores: int, others: float, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now, spent = [0.0], [100.0]
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cores, "others_seconds", lambda: spent[0])
    monkeypatch.setattr(cores.os, "cpu_count", lambda: all_cores)
    found = Cores()
    now[0], spent[0] = 0.9, 1000.0
    assert found.free == all_cores  # the last look is not a second old
    now[0], spent[0] = 4.0, 100.0 + 4 * others
    assert found.free == free
    now[0] = 6.0  # they have ended
    assert found.free == all_cores


def test_others_are_all_but_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "_STAT", tmp_path / "stat")
    assert others_seconds() == 0.0  # the system does not tell
    (tmp_path / "stat").mkdir()
    assert others_seconds() == 0.0  # it does not let us read
    (tmp_path / "stat").rmdir()
    (tmp_path / "stat").write_text(STAT)
    monkeypatch.setattr(cores.os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    monkeypatch.setattr(cores.time, "process_time", lambda: 3.0)
    assert others_seconds() == pytest.approx((1000 + 20 + 300 + 5 + 60 + 700) / 100 - 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the user's choice
    assert others_seconds() == 0.0
