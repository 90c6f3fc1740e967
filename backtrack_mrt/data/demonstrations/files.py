"""Demonstrations on disk: turns of text with spans that carry loss or not.

One JSON object per line: ``{"problem": {"id", "question", "answer", "source"}, "turns": [{"phase": …,
"spans": [{"text": …, "learn": true | false}, …]}, …]}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Problem


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


def read_demonstrations(path: Path) -> Iterable[Demonstration]:
    """Demonstrations of a JSONL file. Raises UserError naming file and line."""
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(file)  # not splitlines(): a question may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("data.traces", str(path), f"cannot be read: {error}", "Name a JSONL file in UTF-8.") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            turns = tuple(tuple(Span(s["text"], bool(s.get("learn", True))) for s in t["spans"]) for t in row["turns"])
            yield Demonstration(Problem(**row["problem"]), turns)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"not a demonstration ({type(error).__name__}: {error})"
            raise UserError(f"{path}:{number}", line[:80], reason, "Give a problem, and turns of spans.") from error


def write_demonstrations(path: Path, demonstrations: Iterable[tuple[Problem, DemoTurns]]) -> None:
    """A file for `read_demonstrations`. Raises UserError if it cannot be written."""
    try:
        with path.open("w", encoding="utf-8") as file:
            for problem, turns in demonstrations:
                row = {
                    "problem": asdict(problem),
                    "turns": [{"phase": phase, "spans": [asdict(span) for span in spans]} for phase, spans in turns],
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError("--out", str(path), f"cannot be written: {error.strerror}", "Name another file.") from error
