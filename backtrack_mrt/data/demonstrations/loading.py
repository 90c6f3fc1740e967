"""The demonstrations of a run: of files, or made for its problems."""

from __future__ import annotations

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
            yield from read_demonstrations(Path(path))
        return
    for row, problem in enumerate(problems):
        if not is_signs(problem):
            raise UserError(
                "data.traces", [], f"there are no generated demonstrations of {problem.id}", "Name a JSONL file."
            )
        turns = demonstrate_signs(problem, random.Random(f"{seed}/{row}"), Demonstrator(forced=0.0))
        yield Demonstration(problem, tuple(turn.spans for turn in turns))
