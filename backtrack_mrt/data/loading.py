"""Problem sets by name: generated (``signs/SPLIT``), local files, or the hub.

A row has a question (column `problem` or `question`) and a gold answer (`answer` or `result`), and may have `id` and
`source`. An id is made unique by the name of its set (``aime24/7``) unless it has a slash already. Golds are checked
here: a row whose gold cannot be graded would count as wrong for ever.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from backtrack_mrt.config import DataSection
from backtrack_mrt.data import signs
from backtrack_mrt.data.sources import Row, column, is_file, read_rows
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.grading import check_gold
from backtrack_mrt.types import Problem

QUESTION_COLUMNS = ("problem", "question")
ANSWER_COLUMNS = ("answer", "result")

_GSM8K = re.compile(r"\n#### (.+)\Z")  # its answers are a solution with the result in the last line


@dataclass(frozen=True)
class ProblemSets:
    """What a run trains on and is evaluated on, disjoint. `notes` tell what was left out and why."""

    train: list[Problem]
    eval: list[Problem]
    notes: list[str]


def load_problem_sets(data: DataSection, batch: int = 1) -> ProblemSets:
    """The training and held-out problems of a config, drawn with its seed. The held-out problems are drawn first and
    their questions then kept out of training, so that runs on different training sets stay comparable.

    Raises UserError for whatever is wrong with a set, and if it has fewer problems than asked for, or, in training,
    than one `batch` of problems."""
    notes: list[str] = []
    evaluated = _Wanted("data.eval", data.eval, data.eval_size, data.seed, data.bad_golds)
    trained = _Wanted("data.train", data.train, data.train_size, data.seed, data.bad_golds)
    held_out = _draw(_pool(evaluated, notes), evaluated)
    asked = {bare(problem.question) for problem in held_out}
    pool = _pool(trained, notes)
    allowed = [problem for problem in pool if bare(problem.question) not in asked]
    if left_out := len(pool) - len(allowed):
        notes.append(f"data.train: {left_out} problems left out because data.eval asks the same")
    return ProblemSets(_draw(allowed, trained, batch, left_out), held_out, notes)


def load_problems(specs: Sequence[str], size: int | None, seed: int, *, field: str = "problems") -> list[Problem]:
    """`size` problems (None: all) drawn without replacement from the sets `specs`, the same for the same arguments.
    `field` is what a UserError blames; see `load_problem_sets`."""
    wanted = _Wanted(field, list(specs), size, seed, "refuse")
    return _draw(_pool(wanted, []), wanted)


def on_hub(spec: str) -> bool:
    """Whether a problem set is neither generated nor a file."""
    return not spec.startswith("signs/") and not is_file(spec)


@dataclass(frozen=True)
class _Wanted:
    """Which problems: `size` (None: all) of those in `sets`. `field` is the config field that says so."""

    field: str
    sets: list[str]
    size: int | None
    seed: int
    bad_golds: str


def _draw(pool: list[Problem], wanted: _Wanted, batch: int = 1, left_out: int = 0) -> list[Problem]:
    field, sets, size = wanted.field, wanted.sets, wanted.size
    note = f" ({left_out} more are held out by data.eval)" if left_out else ""
    if len(pool) < batch or not pool:
        reason = f"the data set has {len(pool)} problems{note}, fewer than one batch of {batch}"
        raise UserError(field, sets, reason, "Give more problems or lower training.problems_per_step.")
    if size is not None and size > len(pool):
        reason = f"the data set has only {len(pool)} problems{note}"
        raise UserError(f"{field}_size", size, reason, f"Set {field}_size to at most {len(pool)}, or to null for all.")
    return random.Random(f"draw/{wanted.seed}").sample(pool, len(pool) if size is None else size)


def _pool(wanted: _Wanted, notes: list[str]) -> list[Problem]:
    """All problems of the sets, checked; `size` generated ones per generated set."""
    field, sets = wanted.field, wanted.sets
    pool: list[Problem] = []
    for spec in sets:
        if spec.startswith("signs/"):
            pool += _generated(spec, wanted.size or 0, wanted.seed, field)
            continue
        name, rows = read_rows(spec, field)
        problems, bad = _problems(rows, spec, name, field)
        if bad:
            reason = (
                f"{len(bad)} of {len(problems) + len(bad)} rows have no gold answer that can be graded: {_some(bad)}"
            )
            if wanted.bad_golds == "refuse":
                raise UserError(field, spec, reason, "Correct or remove these rows, or set data.bad_golds to skip.")
            notes.append(f"{field} = {spec!r}: left out: {reason}")
        pool += problems
    repeated = [name for name, count in Counter(problem.id for problem in pool).items() if count > 1]
    if repeated:
        raise UserError(field, sets, f"ids occur more than once: {_some(repeated)}", "Make the ids unique.")
    return pool


def _generated(spec: str, size: int, seed: int, field: str) -> list[Problem]:
    split = spec.removeprefix("signs/")
    if split not in signs.SPLITS:
        raise UserError(field, spec, "no such split", did_you_mean(split, signs.SPLITS))
    return signs.generate(split, size, seed)


def _problems(rows: list[Row], spec: str, name: str, field: str) -> tuple[list[Problem], list[str]]:
    """Rows as problems, and those without a usable gold as text. Raises UserError for a row that is none."""
    first = rows[0][1]
    question, answer = (column(first, columns, spec, field) for columns in (QUESTION_COLUMNS, ANSWER_COLUMNS))
    problems, bad = [], []
    for index, (where, row) in enumerate(rows):
        asked, gold = (row.get(question), row.get(answer)) if isinstance(row, dict) else (None, None)
        if not isinstance(asked, str) or not asked.strip():
            raise UserError(field, spec, f"{where} has no text in column {question!r}", "Complete or remove the row.")
        plain = str(gold) if isinstance(gold, (str, int, float)) and not isinstance(gold, bool) else ""
        solution = _GSM8K.search(plain)
        plain = (solution[1] if solution else plain).strip()
        given = str(index if row.get("id") in (None, "") else row["id"])
        identity = given if "/" in given else f"{name}/{given}"
        if why := check_gold(plain):
            bad.append(f"{identity} ({why})")
        else:
            problems.append(Problem(identity, asked, plain, str(row.get("source") or name)))
    return problems, bad


def _some(items: Sequence[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def bare(question: str) -> str:
    """The question without case and spacing, to find the same one in two sets."""
    return "".join(question.lower().split())
