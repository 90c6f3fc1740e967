"""The demonstrations of a run: of files, or made for its problems."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from backtrack_mrt.data.demonstrations.files import Demonstration, read_demonstrations
from backtrack_mrt.data.demonstrations.signs import Demonstrator, demonstrate_signs
from backtrack_mrt.data.signs import is_signs
from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Problem


def load_demonstrations(paths: Sequence[str], problems: Sequence[Problem], seed: int) -> Iterable[Demonstration]:
    """Demonstrations of files, or generated ones of `problems` when no file is named. Raises UserError if the problems
    cannot be demonstrated."""
    if paths:
        for path in paths:
            yield from read_demonstrations(Path(os.path.expanduser(path)))
        return
    for row, problem in enumerate(problems):
        _check_generated(problem)
        turns = demonstrate_signs(problem, random.Random(f"{seed}/{row}"), Demonstrator(forced=0.0))
        yield Demonstration(problem, tuple(turn.spans for turn in turns))


def check_demonstrations(paths: Sequence[str], problems: Sequence[Problem]) -> None:
    """Raises UserError for what `load_demonstrations` would refuse; nothing is demonstrated, so it takes no time."""
    for path in paths:
        if not list(read_demonstrations(Path(os.path.expanduser(path)))):
            remedy = "`backtrack-mrt demonstrate` writes some."
            raise UserError("data.traces", path, "it holds no demonstration", remedy)
    for problem in problems if not paths else ():
        _check_generated(problem)


def _check_generated(problem: Problem) -> None:
    if not is_signs(problem):
        reason = f"there are no generated demonstrations of {problem.id}"
        raise UserError("data.traces", [], reason, "Name a JSONL file.")
