r"""Grade answers against golds, one JSON row in, one out.

    python scripts/grade.py rows.jsonl
    echo '{"gold": "1/2", "answer": "So it is \\boxed{0.5}.", "form": "completion"}' | python scripts/grade.py -

Input rows: gold and answer (strings; a null answer is none), optionally form ("answer": what stands in the box, the
default; "completion": a whole text whose last \boxed{} counts) and id. Other fields are ignored.
Output rows: id (if given), verdict (right, wrong, unparsable, timeout) and seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from typing import TextIO

from backtrack_mrt.cli.commands.grade_rows import grade_rows, parse_rows
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.grading import Grader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="JSON lines to grade; - reads standard input")
    parser.add_argument(
        "--rel-tol", type=float, metavar="SHARE", help="accept numbers this close, e.g. 0.01 for 1%% (default: exact)"
    )
    parser.add_argument("--summary", action="store_true", help="print the verdict counts to standard error at the end")
    args = parser.parse_args()
    if args.rel_tol is not None and not 0 <= args.rel_tol < 1:
        raise UserError("--rel-tol", args.rel_tol, "not a share", "Use a number from 0 to 1, such as 0.01.")
    with _open(args.file) as lines, Grader(workers=1) as grader:
        for row in grade_rows(parse_rows(lines, args.file), grader, args.rel_tol):
            print(json.dumps(row), flush=True)
        if args.summary:
            counts = ", ".join(f"{verdict.value} {count}" for verdict, count in grader.counts.items())
            print(counts, file=sys.stderr)


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


if __name__ == "__main__":
    run_main(main)
