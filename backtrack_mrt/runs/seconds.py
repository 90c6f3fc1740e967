"""seconds.json in a run directory: what the run has taken, in however many sittings, but those that were killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import NonNegativeFloat, TypeAdapter

from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.jsonl import read_whole

SECONDS = "seconds.json"  # in a run directory

_SECONDS: TypeAdapter[dict[str, float]] = TypeAdapter(dict[str, NonNegativeFloat])


def earlier_seconds(path: Path) -> dict[str, float]:
    """Wall seconds by part that the run in a directory has taken so far; none where nothing says so. Raises UserError
    for a file that cannot be read."""
    if not (path / SECONDS).exists():
        return {}
    made, remedy = _SECONDS.validate_python, "Delete it: the seconds count from here then."
    return read_whole(path / SECONDS, made, what="seconds by part", field=SECONDS, remedy=remedy)


@contextmanager
def keeping(run: RunDir, seconds: Mapping[str, float]) -> Iterator[None]:
    """Save them when the block ends, however it does."""
    try:
        yield
    finally:
        run.save(SECONDS, seconds)
