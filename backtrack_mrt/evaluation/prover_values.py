"""How hard problems are for a model: V_0, the meta-prover's value before the first turn. `data.v0` filters by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one

from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.runs import jsonl
from backtrack_mrt.types import Problem, Trajectory, TurnSpec


class _Rated(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]
    id: str
    v0: Annotated[float, Field(ge=0)]
    rated_by: str


_ROWS = TypeAdapter(_Rated)


def first_values(
    problems: Sequence[Problem], protocol: EpisodeProtocol, dialogue: Dialogue, prover: MetaProver
) -> list[float]:
    """V_0 of each problem."""
    starts = []
    for problem in problems:
        first = protocol.next_turn(problem, ())
        assert isinstance(first, TurnSpec), "a protocol starts with a turn"
        starts.append(Trajectory(problem, dialogue.opening(problem, first)))
    return [float(values[0]) for values in prover.values(starts)]


def rate(
    problems: Sequence[Problem],
    path: Path,
    rated_by: str,
    values: Callable[[Sequence[Problem]], list[float]],
    chunk: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[float]:
    """Write the problems with their V_0 (column `v0`) to a JSONL file, `chunk` at a time, and give all V_0 in it.
    Problems that the file holds already are not rated again: an interrupted rating goes on where it stopped.

    Raises UserError if the file cannot be used: not JSONL, or of another rater than `rated_by`."""
    rows = _rated(path, rated_by)
    done = {row["id"] for row in rows}
    left = [problem for problem in problems if problem.id not in done]
    on_rows(len(problems) - len(left))
    path.touch()
    for start in range(0, len(left), chunk):
        some = left[start : start + chunk]
        found = [
            {key: value for key, value in asdict(problem).items() if value is not None}
            | {"v0": v0, "rated_by": rated_by}
            for problem, v0 in zip(some, values(some), strict=True)
        ]
        jsonl.append(path, found)
        rows += found
        on_rows(len(some))
    return [row["v0"] for row in rows]


def _rated(path: Path, rated_by: str) -> list[Any]:
    """The rows of the file, none if there is no file. A last line that was cut short is taken off."""
    if not path.exists():
        return []
    made, remedy = _ROWS.validate_python, "Name another file."
    rows = list(jsonl.read(path, made, what="a rated problem", field="--out", remedy=remedy, torn=True))
    if path.stat().st_size and not rows:
        raise UserError("--out", str(path), "exists and holds no rated problem", remedy)
    if others := {row["rated_by"] for row in rows} - {rated_by}:
        raise UserError("--out", str(path), f"was rated by {others.pop()}, not {rated_by}", remedy)
    jsonl.cut_torn(path)
    return rows
