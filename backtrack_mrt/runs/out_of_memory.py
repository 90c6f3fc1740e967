"""Running out of memory, told with what was too large and what to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from backtrack_mrt.errors import RunError

# CUDA's allocator says "out of memory", torch's for the CPU "can't allocate memory", the C++ library's "bad_alloc".
_SIGNS = ("out of memory", "allocate memory", "bad_alloc")


@contextmanager
def told_when_out_of_memory(doing: str | Callable[[], str], settings: Sequence[str]) -> Iterator[None]:
    """Raises RunError where the block runs out of memory. doing: what it was at, with shapes (asked then, if that is
    not known before); settings: what to lower, the most effective first."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _SIGNS):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        remedy = f"Lower {', or '.join(settings)}. Checkpoints are intact: go on with --resume --accept-changes."
        told = doing if isinstance(doing, str) else doing()
        raise RunError(f"out of memory while {told} ({said})", remedy) from error
