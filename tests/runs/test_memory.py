"""How much memory a process may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backtrack_mrt.runs import memory
from backtrack_mrt.runs.memory import allowed_memory

GIB = 1 << 30
JOB = "slurm/job_7/step_0"  # the batch system limits the job, not its step


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 GiB without groups; where its groups would be."""
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}[name])
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    return tmp_path


@pytest.mark.parametrize(
    ("own", "limits", "gib"),
    [
        (None, {}, 64),
        (f"0::/{JOB}", {}, 64),
        ("0::/", {"memory.max": "max"}, 64),
        ("0::/", {"memory.max": str(4 * GIB)}, 4),  # a container
        (f"0::/{JOB}", {f"{JOB}/memory.max": "max", "slurm/job_7/memory.max": str(16 * GIB)}, 16),
        (f"3:cpuset:/{JOB}\n4:memory:/docker/abc", {"memory/memory.limit_in_bytes": str(8 * GIB)}, 8),
        ("4:memory:/", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, 64),
    ],
)
def test_it_is_that_of_the_container_or_the_job(
    system: Path, own: str | None, limits: dict[str, str], gib: int
) -> None:
    if own is not None:
        (system / "own").write_text(f"{own}\n")
    for name, limit in limits.items():
        file = system / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    assert allowed_memory() == gib * GIB


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert allowed_memory() == 0
