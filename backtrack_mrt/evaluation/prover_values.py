"""How hard problems are for a model: V_0, the meta-prover's value before the first turn. `data.v0` filters by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.types import Problem, Trajectory, TurnSpec


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
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(left), chunk):
            some = left[start : start + chunk]
            for problem, v0 in zip(some, values(some), strict=True):
                columns = {key: value for key, value in asdict(problem).items() if value is not None}
                rows.append(columns | {"v0": v0, "rated_by": rated_by})
                file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
            file.flush()
            on_rows(len(some))
    return [row["v0"] for row in rows]


def _rated(path: Path, rated_by: str) -> list[dict[str, Any]]:
    """The rows of the file, none if there is no file. A last line that was cut short is taken off."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        rows = [json.loads(line) for line in whole.decode().split("\n")[:-1]]
        raters = {row["rated_by"] for row in rows if row["id"] and float(row["v0"]) >= 0}
        if text and not raters:
            raise ValueError("it holds none")
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"exists and is not a file of rated problems ({type(error).__name__}: {error})"
        raise UserError("--out", str(path), reason, "Name another file.") from error
    if others := raters - {rated_by}:
        raise UserError("--out", str(path), f"was rated by {others.pop()}, not {rated_by}", "Name another file.")
    if whole != text:
        path.write_bytes(whole)
    return rows
