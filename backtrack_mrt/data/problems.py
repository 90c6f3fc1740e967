"""From the rows of a set to problems: columns, gold answers, and which rows are left out for which reason.

The question stands in the columns that the set's entry names, else in the first of `QUESTION_COLUMNS`; the gold
answer likewise, and the options of a multiple choice (`choices`). A column inside another (which may be written as
JSON) is ``outer.inner``; a question may be a list of messages, one of the user's. A row may also have `id`, `source`,
`rel_tol` and `v0` (`backtrack-mrt rate`). An id is made unique by the name of its set (``aime24/7``) unless it has a
slash already. Golds are checked here: a row whose gold cannot be graded would count as wrong for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from backtrack_mrt.config import SetSection
from backtrack_mrt.data.answers import joined_tests, read_gold
from backtrack_mrt.data.choices import RIGHT_COLUMNS, count_from_1, option_columns, options_in
from backtrack_mrt.data.sources import cell, column, read_rows
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.types import Problem

QUESTION_COLUMNS = (
    *("problem", "question", "question_concat", "prompt", "query", "Question", "Problem", "messages"),
    "question_stem",  # OpenBookQA's
)
ANSWER_COLUMNS = (
    *("answer", "result", "Answer", "final_answer", "expected_answer", "ground_truth"),
    *("reward_model.ground_truth", "verification_info.ground_truth"),  # verl's, prime-rl's
)
SOLUTIONS = ("solution", "response")  # hold the answer, too, if there is no column of its own for it
CONTEXTS = ("passage", "context", "article", "support")  # what a question may be about


@dataclass(frozen=True)
class SetSource:
    """A set to be read. `field` and `spec` say where it was asked for: what a UserError blames."""

    field: str
    spec: str
    name: str
    entry: SetSection
    bad_golds: str = "refuse"  # unless the entry says otherwise
    v0: Sequence[float] | None = None  # from … to …: only rows with `v0` in this interval
    grader: Grader = MATH

    @property
    def skips(self) -> bool:
        """Whether rows without a usable gold are left out instead of refused."""
        return (self.entry.bad_golds or self.bad_golds) == "skip"

    def error(self, reason: str, remedy: str) -> UserError:
        return UserError(self.field, self.spec, reason, remedy)


@dataclass
class Found:
    """The problems of a set, and which rows are none."""

    problems: list[Problem] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)  # ids of rows without a usable gold, and why
    rows: int = 0
    other: int = 0  # rows that the entry's `where` does not want
    rated_out: int = 0  # rows outside the interval of `v0`
    aside: str | None = None  # a column that questions may be about, and that is not among theirs


@dataclass(frozen=True)
class _Columns:
    """Which columns hold what; no `options` but of a multiple choice."""

    question: list[str]
    answer: list[str]
    options: list[str]
    aside: str | None


def read_problems(source: SetSource) -> Found:
    """All problems of a set. Raises UserError for a set without the columns it needs, and for rows without a question
    or a gold answer that can be graded, if they are to be refused."""
    entry, found = source.entry, Found()
    rows = chain.from_iterable(read_rows(place, source.field, source.spec) for place in entry.path)
    first = next(rows)
    columns = _columns(first[1], source)
    found.aside = columns.aside
    for index, (where, row) in enumerate(chain([first], rows)):
        cells: Mapping[str, Any] = row if isinstance(row, dict) else {}
        found.rows += 1
        if any(str(cell(cells, name)) != value for name, value in entry.where.items()):
            found.other += 1
        elif not _rated_in(cells, where, source):
            found.rated_out += 1
        else:
            given = str(index if cells.get("id") in (None, "") else cells["id"])
            identity = given if "/" in given else f"{source.name}/{given}"
            asked, gold, why = _posed(cells, columns, where, source)
            if asked is None and not source.skips:
                name = columns.question[0]
                raise source.error(f"{where} has no text in column {name!r}", "Complete or remove the row.")
            if asked is None or why:
                found.bad.append(f"{identity} ({why or 'has no question'})")
                continue
            rel_tol = _number(cells, "rel_tol", where, source) or entry.rel_tol
            try:
                problem = Problem(identity, asked, gold, str(cells.get("source") or source.name), rel_tol)
            except ValueError as error:
                raise source.error(f"{where}: {error}", "Correct or remove the row.") from None
            found.problems.append(problem)
    if found.bad and not source.skips:
        raise source.error(_bad(found), "Correct or remove these rows, or set data.bad_golds to skip.")
    return found


def notes_on(source: SetSource, found: Found) -> list[str]:
    """What was left out of a set, for the user to read."""
    told = []
    if found.other:
        wanted = ", ".join(f"{name} = {value}" for name, value in source.entry.where.items())
        told.append(f"{found.other} of {found.rows} rows: wanted are those with {wanted}")
    if source.v0 and found.rated_out:
        told.append(f"{found.rated_out} of {found.rows} rows have no v0 from {source.v0[0]:g} to {source.v0[1]:g}")
    if found.bad:
        told.append(_bad(found))
    told = [f"left out: {text}" for text in told]
    if found.aside:
        told.append(f"the column {found.aside!r} is not shown to the model: data.sets can add it to the question")
    return [f"{source.field} = {source.spec!r}: {text}" for text in told]


def unrated(spec: str, v0: Sequence[float]) -> UserError:
    """The error for a set whose problems nobody has rated."""
    remedy = "Rate its problems with backtrack-mrt rate and name the file it writes, or leave data.v0 out."
    return UserError("data.v0", list(v0), f"{spec} has no column 'v0'", remedy)


def some(items: Sequence[str]) -> str:
    """The first five, and how many there are besides."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _columns(first: Mapping[str, Any], source: SetSource) -> _Columns:
    """The columns of the question, of the gold answer, and of the options, if there are any."""
    entry, grader = source.entry, source.grader
    if source.v0 is not None and "v0" not in first:
        raise unrated(source.spec, source.v0)
    for name in [*entry.where, *(entry.choices or ()), *(entry.answer or ())]:
        column(first, [name], source.field, source.spec)
    wanted = [(name,) for name in entry.question] if entry.question else [QUESTION_COLUMNS]
    question = [column(first, names, source.field, source.spec) for names in wanted]
    options = option_columns(first) if entry.choices is None else entry.choices
    if entry.choices is None and count_from_1(options):
        named = f"choices: [{', '.join(options)}]"
        remedy = f"Say so in data.sets: {named}, and first_choice: 1 where 1 is the first one's number."
        raise source.error(f"{source.spec} has options in {' and '.join(options)}", remedy)
    answer = entry.answer or next(
        ([name for name in names if name in first] for names in grader.gold_columns if names[-1] in first), None
    )
    if answer is None:
        own = RIGHT_COLUMNS if options else [names[-1] for names in grader.gold_columns]
        names = (*own, *ANSWER_COLUMNS, *SOLUTIONS)
        answer = [column(first, names, source.field, source.spec)]
    if len(answer) > 1 and grader.golds_are_answers:
        raise source.error(
            f"an answer in {len(answer)} columns: {', '.join(answer)}", "Name one; tests may be in several."
        )
    texts = (name for name in CONTEXTS if isinstance(first.get(name), str) and name not in [*question, *answer])
    return _Columns(question, answer, options if grader.golds_are_answers else [], next(texts, None))


def _posed(
    cells: Mapping[str, Any], columns: _Columns, where: str, source: SetSource
) -> tuple[str | None, str, str | None]:
    """The question (None: there is none), its gold, and why the gold cannot be used (None if it can)."""
    asked, entry, grader = _question(cells, columns.question), source.entry, source.grader
    values = [cell(cells, name) for name in columns.answer]
    if not grader.golds_are_answers:
        return asked, *read_gold(joined_tests(cells, values), entry.extract, False, grader)
    try:
        options = options_in([cell(cells, name) for name in columns.options]) if columns.options else None
    except ValueError as error:
        return asked, "", f"{columns.options[0]} {error}"
    if options is None or asked is None:
        return asked, *read_gold(values[0], entry.extract, columns.answer[0] in SOLUTIONS, grader)
    try:
        right = options.right(values[0], entry.first_choice)
    except ValueError as error:
        raise source.error(f"{where} {error}", "Give it first_choice: 1 in data.sets.") from None
    if isinstance(right, str):
        return asked, "", f"{columns.answer[0]} {right}"
    if columns.answer[0] in columns.options or isinstance(values[0], list):  # the rows know no order
        options, right = options.shuffled(asked, right)
    asked, gold = options.posed(asked, right, grader)
    return asked, gold, grader.refusal(gold)


def _question(cells: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    texts = [text for name in columns if (text := _asked(cell(cells, name))).strip()]
    if len(texts) < len(columns):
        return None
    return texts[0] if len(texts) == 1 else " ".join(text.strip() for text in texts)


def _asked(value: Any) -> str:
    """The text of a question, or of a conversation that is one."""
    if isinstance(value, list):
        said = [message for message in value if isinstance(message, dict)]
        asked = [message.get("content") for message in said if message.get("role") == "user"]
        alone = len(asked) == 1 and all(message.get("role") != "assistant" for message in said)
        return _written(asked[0]) if alone else ""
    return value if isinstance(value, str) else ""


def _written(content: Any) -> str:
    """A message's content, also where it is a list of texts (``{"type": "text", "text": …}``)."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    return "\n".join(said) if len(said) == len(texts) else ""


def _rated_in(cells: Mapping[str, Any], where: str, source: SetSource) -> bool:
    if source.v0 is None:
        return True
    v0 = _number(cells, "v0", where, source)
    return v0 is not None and source.v0[0] <= v0 <= source.v0[1]


def _number(cells: Mapping[str, Any], name: str, where: str, source: SetSource) -> float | None:
    value = cells.get(name)
    try:
        if isinstance(value, bool):
            raise TypeError
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError, OverflowError):
        raise source.error(f"{where} has no number in column {name!r}", "Correct or remove the row.") from None


def _bad(found: Found) -> str:
    return f"{len(found.bad)} of {found.rows} rows have no gold answer that can be graded: {some(found.bad)}"
