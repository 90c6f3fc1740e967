"""Put finished runs side by side, with intervals.

Runs of one algorithm with several seeds are averaged. They may differ in algorithm and training, not in model, data,
protocol, prover or evaluation.
"""

from __future__ import annotations

from argparse import Namespace

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_folder, typed_path
from backtrack_mrt.runs.kinds import holds_run, not_to_write_into

EXAMPLES = """\
  backtrack-mrt compare runs/A runs/B                       # the table
  backtrack-mrt compare runs/A runs/B --out comparison      # report.html, comparison.md, comparison.json, figures/"""


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", type=typed_path, help="run directory; the first is the reference")
    add("--out", type=typed_path, metavar="FOLDER", help="where to write the report and the numbers")


def run(args: Namespace) -> None:
    from rich.console import Console

    from backtrack_mrt.evaluation.comparison import Comparison
    from backtrack_mrt.reports.build import report_comparison
    from backtrack_mrt.runs.finished import read_run

    if args.out:
        check_folder("--out", args.out)
        if holds_run(args.out):
            raise not_to_write_into("--out", args.out)
    comparison = Comparison([read_run(path) for path in args.runs])
    Console().print(comparison.table())
    print(comparison.headline())
    if args.out:
        comparison.write(args.out)
        report_comparison(comparison, args.out)
        print(f"comparison: {args.out}")
