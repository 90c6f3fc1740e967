"""Problem sets by name: generated (``signs/SPLIT``), local files, or the hub.

A row has a question (column `problem` or `question`) and a gold answer (`answer` or `result`), and may have `id` and
`source`. An id is made unique by the name of its set (``aime24/7``) unless it has a slash already. Golds are checked
here: a row whose gold cannot be graded would count as wrong for ever.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtrack_mrt.config import DataSection
from backtrack_mrt.data import signs
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.grading import check_gold
from backtrack_mrt.hub import rely_on_cache_if_unreachable
from backtrack_mrt.types import Problem

QUESTION_COLUMNS = ("problem", "question")
ANSWER_COLUMNS = ("answer", "result")

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<subset>[\w.-]+))?(?::(?P<split>.+))?")
_GSM8K = re.compile(r"\n#### (.+)\Z")  # its answers are a solution with the result in the last line

Row = tuple[str, dict[str, Any]]  # where it stands (file:line), its columns


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
    asked = {_bare(problem.question) for problem in held_out}
    pool = _pool(trained, notes)
    allowed = [problem for problem in pool if _bare(problem.question) not in asked]
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
    return not spec.startswith("signs/") and Path(spec).suffix not in _READERS


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
        problems, bad = _read(spec, field)
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


def _read(spec: str, field: str) -> tuple[list[Problem], list[str]]:
    """The problems of a file or a hub data set, and the rows without a usable gold as text."""
    path = Path(spec).expanduser()
    if reader := _READERS.get(path.suffix):
        if not path.is_file():
            raise UserError(field, spec, "no such file", "Give an existing .jsonl, .json, .csv or .parquet file.")
        try:
            return _problems(list(reader(path)), spec, path.stem, field)
        except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
            reason = f"cannot be read: {str(error).splitlines()[0]}"
            raise UserError(field, spec, reason, f"Give a valid {path.suffix} file in UTF-8.") from error
    match = _HUB.fullmatch(spec)
    if match is None or path.exists():
        remedy = "Give signs/SPLIT, a .jsonl, .json, .csv or .parquet file, or OWNER/NAME[/SUBSET][:SPLIT]."
        raise UserError(field, spec, "not a problem set", remedy)
    return _problems(list(_hub_rows(match, spec, field)), spec, match["name"].rpartition("/")[2], field)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", _json(line, f"line {number}")


def _json_rows(path: Path) -> Iterator[Row]:
    rows = _json(path.read_text(encoding="utf-8-sig"), "the file")
    if not isinstance(rows, list):
        raise ValueError("not a list of rows")
    for index, row in enumerate(rows):
        yield f"{path}[{index}]", row


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield f"{path}:{reader.line_num}", row


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import parquet  # type: ignore[import-untyped]  # slow to import

    for index, row in enumerate(parquet.read_table(path).to_pylist()):
        yield f"{path}[{index}]", row


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _hub_rows(match: re.Match[str], spec: str, field: str) -> Iterator[Row]:
    rely_on_cache_if_unreachable()
    from datasets import load_dataset  # seconds to import

    split = match["split"] or "train"
    try:
        rows = load_dataset(match["name"], match["subset"], split=split)
    except Exception as error:  # offline, no such name, no such split, no access: the library's word tells which
        reason = f"cannot be had from the hub ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
        remedy = (
            f"Without a network, fetch it elsewhere (`hf download --repo-type dataset {match['name']}`), "
            f"or give a local file: --{field} FILE.jsonl."
        )
        raise UserError(field, spec, reason, remedy) from error
    for index, row in enumerate(rows):
        yield f"{spec}[{index}]", row


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: {error.msg} at column {error.colno}") from error


def _problems(rows: list[Row], spec: str, name: str, field: str) -> tuple[list[Problem], list[str]]:
    """Rows as problems, and those without a usable gold as text. Raises UserError for a row that is none."""
    if not rows:
        raise UserError(field, spec, "it has no rows", "Give a file with at least one problem.")
    where, first = rows[0]
    if not isinstance(first, dict):
        raise UserError(field, spec, f"{where} is not an object", "Write one object with named columns per row.")
    question, answer = (_column(first, columns, spec, field) for columns in (QUESTION_COLUMNS, ANSWER_COLUMNS))
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


def _column(row: dict[str, Any], wanted: tuple[str, ...], spec: str, field: str) -> str:
    found = next((name for name in wanted if name in row), None)
    if found is None:
        have = ", ".join(map(str, row))
        reason = f"no column {' or '.join(map(repr, wanted))}, only: {have}"
        raise UserError(field, spec, reason, "Rename the column that holds it.")
    return found


def _some(items: Sequence[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _bare(question: str) -> str:
    """The question without case and spacing, to find the same one in two sets."""
    return "".join(question.lower().split())
