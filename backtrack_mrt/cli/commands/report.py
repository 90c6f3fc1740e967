"""Rebuild the report of a run, compare runs, or look at traces.

A report is one HTML file that needs no server and no network. That of a run may be rebuilt while it trains.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_file, check_folder, typed_path
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import NO_VALUE, UserError
from backtrack_mrt.runs.kinds import holds_run, not_to_write_into

EXAMPLES = """\
  backtrack-mrt report runs/RUN                                # RUN/report.html and RUN/figures
  backtrack-mrt report runs/A runs/B --out comparison          # side by side
  backtrack-mrt report --traces OURS.jsonl THEIRS.jsonl        # the viewer; docs/formats.md has the form"""


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="*", type=typed_path, help="run directory; several are compared")
    add("--traces", metavar="FILE", nargs="+", type=typed_path, help="trajectories, also of other programs")
    place = (
        "directory of a run's report (default: the run's) or a comparison (comparison), the viewer's file (traces.html)"
    )
    add("--out", type=typed_path, metavar="PLACE", help=place)
    parser.take_settings()


def run(args: Namespace) -> None:
    if bool(args.runs) == bool(args.traces):
        raise UserError("RUN", NO_VALUE, "runs or --traces, one of the two", "See --help.")
    if args.runs and args.settings:
        reason = "a run has its own settings; they are for --traces, whose answers a --grader judges"
        raise UserError("RUN", " ".join(args.settings), reason, "Leave them out.")
    from backtrack_mrt.evaluation.comparison import Comparison
    from backtrack_mrt.reports.build import report_comparison, report_run, report_traces
    from backtrack_mrt.runs.finished import read_run

    if args.traces:
        page = args.out or Path("traces.html")
        check_file("--out", page)
        grader = read_request(args.settings, training=False).config.grading
        written = report_traces(args.traces, page, grader)
    elif len(args.runs) == 1:
        (run,) = args.runs
        folder = run if args.out in (None, run) else _made(args.out)
        if run.is_dir():
            check_folder("--out", folder)
        written = report_run(run, folder=folder)
    else:
        folder = _made(args.out or Path("comparison"))
        written = report_comparison(Comparison([read_run(path) for path in args.runs]), folder)
    print(f"report: {written}")


def _made(folder: Path) -> Path:
    """A directory for reports, which is no run's."""
    check_folder("--out", folder)
    if holds_run(folder):
        raise not_to_write_into("--out", folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
