"""Does a trainer keep a credit per turn? Asks ours, TRL, verl, SkyRL and verifiers.

Four questions, worked out exactly: does credit for one turn reach that turn, do the environment's tokens get none, is
summed progress GRPO, and is the choice when to stop credited without bias. The functions asked are the trainers' own.
"""

from __future__ import annotations

from argparse import Namespace

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_file, typed_path
from backtrack_mrt.errors import RunError

EXAMPLES = """\
  backtrack-mrt conform
  backtrack-mrt conform --out conformance.md"""


def arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=typed_path, metavar="FILE", help="also write the table there, as Markdown")


def run(args: Namespace) -> None:
    if args.out is not None:
        check_file("--out", args.out)
    from rich.console import Console

    from backtrack_mrt.evaluation.conformance import QUESTIONS, conformance
    from backtrack_mrt.evaluation.tables import as_markdown, as_table
    from backtrack_mrt.training.stacks import stacks

    asked, missing = stacks()
    found = [conformance(stack) for stack in asked]
    rows = [["stack", *QUESTIONS]]
    for each in found:
        rows.append([each.name, *(f"{'yes' if ok else 'NO'}: {seen}" for ok, seen in each.answers.values())])
    Console().print(as_table(rows, "is a credit per turn kept?"))
    for line in missing:
        print(f"not asked: {line}")
    if args.out is not None:
        args.out.write_text(as_markdown(rows), encoding="utf-8")
        print(f"table: {args.out}")
    if broken := [each.name for each in found[:2] if not each.keeps]:
        raise RunError(f"{' and '.join(broken)} does not keep it", "Tell the maintainers, with this table.")
