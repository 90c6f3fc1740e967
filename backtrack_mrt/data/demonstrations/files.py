"""Demonstrations on disk: turns of text with spans that carry loss or not.

One JSON object per line: ``{"problem": {"id", "question", "answer", "source"}, "turns": [{"phase": …,
"spans": [{"text": …, "learn": true | false}, …]}, …]}``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, Required

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.records import ProblemRow, problem_of
from backtrack_mrt.types import Problem

_STRICT = ConfigDict(strict=True)


@dataclass(frozen=True, slots=True)
class Span:
    """Text of the model's side of a turn; `learn` is False where it carries no loss."""

    text: str
    learn: bool = True


DemoTurns = list[tuple[str, tuple[Span, ...]]]  # phases and what is said


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A problem and the replies to the protocol's turns, each in spans."""

    problem: Problem
    turns: tuple[tuple[Span, ...], ...]


class _SpanRow(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    text: Required[str]
    learn: bool


class _TurnRow(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    phase: NotRequired[str]
    spans: list[_SpanRow]


class _Row(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    problem: ProblemRow
    turns: list[_TurnRow]


_ROWS = TypeAdapter(_Row)


def read_demonstrations(path: Path) -> Iterable[Demonstration]:
    """Demonstrations of a JSONL file. Raises UserError naming file and line."""
    remedy = "Give a problem, and turns of spans."
    return jsonl.read(path, _demonstration, what="a demonstration", field="data.traces", remedy=remedy)


def _demonstration(row: Any) -> Demonstration:
    read = _ROWS.validate_python(row)
    turns = (tuple(Span(span["text"], span.get("learn", True)) for span in turn["spans"]) for turn in read["turns"])
    return Demonstration(problem_of(read["problem"]), tuple(turns))


def write_demonstrations(path: Path, demonstrations: Iterable[tuple[Problem, DemoTurns]]) -> None:
    """A file for `read_demonstrations`. Raises UserError if it cannot be written."""
    rows = (
        {
            "problem": asdict(problem),
            "turns": [{"phase": phase, "spans": [asdict(span) for span in spans]} for phase, spans in turns],
        }
        for problem, turns in demonstrations
    )
    try:
        jsonl.write(path, rows)
    except OSError as error:
        raise UserError("--out", str(path), f"cannot be written: {error.strerror}", "Name another file.") from error
