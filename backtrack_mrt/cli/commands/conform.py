"""Does a trainer keep a credit per turn? Also asks your own.

Four questions, worked out exactly: does credit for one turn reach that turn, do the environment's tokens get none, is
summed progress GRPO, and is the choice when to stop credited without bias. The functions asked are the trainers' own.
Of a file of yours exit code 1 says that it does not keep it.
"""

from __future__ import annotations

from argparse import Namespace
from os.path import expanduser
from pathlib import Path

from backtrack_mrt import plugins
from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_file, typed_path
from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.evaluation.conformance import QUESTIONS, Conformance, Stack, conformance
from backtrack_mrt.evaluation.tables import as_markdown, as_table
from backtrack_mrt.hooks import uncallable

EXAMPLES = """\
  backtrack-mrt conform
  backtrack-mrt conform ./my_loop.py                  # your own: docs/conformance.md
  backtrack-mrt conform --out conformance.md"""
STACKS = "backtrack_mrt.stacks"


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("stack", nargs="?", metavar="./FILE.py", type=expanduser, help="your own trainer's credit (default: all known)")
    add("--out", type=typed_path, metavar="FILE", help="also write the table there, as Markdown")


def run(args: Namespace) -> int:
    if args.out is not None:
        check_file("--out", args.out)
    if args.stack is not None:
        found, missing = [conformance(_own(args.stack))], list[str]()
    else:
        from backtrack_mrt.training.stacks import stacks  # late: a mistake must not wait for torch

        asked, missing = stacks()
        found = [conformance(stack) for stack in asked]
    _tell(found, missing, args.out)
    if args.stack is None and (broken := [each.name for each in found[:2] if not each.keeps]):
        raise RunError(f"{' and '.join(broken)} does not keep it", "Tell the maintainers, with this table.")
    return int(args.stack is not None and not found[0].keeps)


def _own(name: str) -> Stack:
    found = plugins.load(STACKS, name, Stack, "STACK")  # type: ignore[type-abstract]
    if reason := uncallable(found, []):
        raise UserError("STACK", name, f"{found.__name__} {reason}", "Give all its arguments a default.")
    return found()


def _tell(found: list[Conformance], missing: list[str], out: Path | None) -> None:
    from rich.console import Console

    rows = [["stack", *QUESTIONS]]
    for each in found:
        rows.append([each.name, *(f"{'yes' if ok else 'NO'}: {seen}" for ok, seen in each.answers.values())])
    shown = rows if len(found) > 1 else [list(pair) for pair in zip(*rows, strict=True)]  # one is read from above
    Console().print(as_table(shown, "is a credit per turn kept?"))
    for line in missing:
        print(f"not asked: {line}")
    if out is not None:
        out.write_text(as_markdown(rows), encoding="utf-8")
        print(f"table: {out}")
