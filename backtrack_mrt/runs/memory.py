"""How much memory this process may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OWN, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def allowed_memory() -> int:
    """Bytes of the machine, or of the container or the batch job that this runs in, if it has fewer; 0 where the system
    does not tell."""
    with suppress(AttributeError, ValueError, OSError):  # no such function, or no such name in it
        return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits()])
    return 0


def _limits() -> Iterator[int]:
    """Those of the groups of processes (cgroups, of both versions) that this one is in, from the inner to the outer."""
    with suppress(OSError):
        for line in _OWN.read_text(encoding="utf-8").splitlines():
            _, kinds, group = line.split(":", 2)
            if kinds in ("", "memory"):
                root, file = (_GROUPS / "memory", "memory.limit_in_bytes") if kinds else (_GROUPS, "memory.max")
                inner = root / group.lstrip("/")
                for folder in (inner, *(outer for outer in inner.parents if outer.is_relative_to(root))):
                    with suppress(OSError, ValueError):  # not seen from within a container; "max"
                        yield int((folder / file).read_text(encoding="ascii"))
