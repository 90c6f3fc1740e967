r"""Grade answers against golds, one JSON row in, one out.

Input rows: gold and answer (strings; a null answer is none), optionally form ("answer": what stands in the box, the
default; "completion": a whole text whose last \boxed{}, or other marker of the grader, counts), question (for graders
that read it) and id. Other fields are ignored.
Output rows: id (if given), verdict (right, partial, wrong, unparsable, timeout), reward and seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import NO_VALUE, UserError, did_you_mean
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.types import Problem

EXAMPLES = """\
  backtrack-mrt grade rows.jsonl --summary
  backtrack-mrt grade rows.jsonl --grader number --grading.rel_tol 0.05
  echo '{"gold": "1/2", "answer": "So it is \\\\boxed{0.5}.", "form": "completion"}' | backtrack-mrt grade -"""

FORMS = ("answer", "completion")


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE.jsonl", help="rows to grade; - reads standard input")
    add("--rel-tol", type=float, metavar="SHARE", help="accept numbers this close, e.g. 0.01 for 1%% (default: exact)")
    parser.take_settings()
    add("--summary", action="store_true", help="print the verdict counts to standard error at the end")


def run(args: Namespace) -> None:
    if args.rel_tol is not None and not 0 <= args.rel_tol < 1:
        raise UserError("--rel-tol", args.rel_tol, "not a share", "Use a number from 0 to 1, such as 0.01.")
    grading = read_request(args.settings, training=False).config.grading
    rows_out = sys.stdout
    with (
        _open(args.file) as lines,
        grading.opened().counting() as grader,
        contextlib.redirect_stdout(sys.stderr),  # what a grader prints is no row
    ):
        for row in grade_rows(parse_rows(lines, args.file), grader, args.rel_tol):
            print(json.dumps(row), file=rows_out, flush=True)
        if args.summary:
            counts = ", ".join(f"{verdict.value} {count}" for verdict, count in grader.counts.items())
            print(counts, file=sys.stderr)


@dataclass(frozen=True)
class GradeRow:
    """One question to the grader: ``text`` is what stands in the box (form "answer") or a whole model turn."""

    gold: str
    text: str | None
    form: str
    id: Any = None
    question: str = ""


def parse_rows(lines: Iterable[str], source: str) -> Iterator[GradeRow]:
    """The rows of ``lines``, blank ones skipped; fields other than gold, answer, form and id are not looked at.

    Raises:
        UserError: a line is not a JSON object, lacks a field, or has one of the wrong type. Names ``source`` and line.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse_row(line, f"{source}, line {number}")


def _parse_row(line: str, where: str) -> GradeRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(
            where, _shortened(line.strip()), f"not JSON: {error}", "Write one JSON object a line."
        ) from None
    if not isinstance(row, dict):
        raise UserError(where, _shortened(row), "not a JSON object", 'Write {"gold": "7", "answer": "7.0"}.')
    for field in ("gold", "answer"):
        if field not in row:
            remedy = f"Add the field {field!r}; the row has {', '.join(map(repr, row)) or 'no field'}."
            raise UserError(f"{where}, {field}", NO_VALUE, "the field is missing", remedy)
    gold, answer, form = row["gold"], row["answer"], row.get("form", "answer")
    for field, value, remedy in (
        ("gold", gold, "Write it as a string."),
        ("answer", "" if answer is None else answer, "Write it as a string, or null for no answer."),
    ):
        if not isinstance(value, str):
            raise UserError(f"{where}, {field}", _shortened(value), f"has the type {type(value).__name__}", remedy)
    if form not in FORMS:
        remedy = did_you_mean(form, FORMS) if isinstance(form, str) else f"Use one of {', '.join(FORMS)}."
        raise UserError(f"{where}, form", _shortened(form), "not a known form", remedy)
    question = row.get("question")
    return GradeRow(gold, answer, form, row.get("id"), question if isinstance(question, str) else "")


def _shortened(value: object) -> object:
    text = value if isinstance(value, str) else repr(value)
    return f"{text[:60]}…" if len(text) > 60 else value


def grade_rows(rows: Iterable[GradeRow], grader: Grader, rel_tol: float | None = None) -> Iterator[dict[str, Any]]:
    """For each row its ``id`` (if it has one), ``verdict``, ``reward`` and the wall ``seconds`` the grade took."""
    for row in rows:
        problem = Problem(str(row.id), row.question, row.gold, rel_tol=rel_tol)
        start = time.perf_counter()
        found = row.text if row.form == "answer" or row.text is None else grader.marker.find(row.text)
        grade = grader.grade(problem, found)
        seconds = round(time.perf_counter() - start, 6)
        named = {} if row.id is None else {"id": row.id}
        yield {**named, "verdict": grade.verdict.value, "reward": grade.reward, "seconds": seconds}


def _open(file: str) -> contextlib.AbstractContextManager[TextIO]:
    if file == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        return contextlib.nullcontext(sys.stdin)
    try:
        return open(file, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            "FILE", file, str(error.strerror), "Give the path of a JSON-lines file, or - for stdin."
        ) from None
