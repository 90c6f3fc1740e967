#!/usr/bin/env python
"""Rebuild the report of a run, compare runs, or look at traces: one HTML file that needs no server and no network.

python scripts/report.py runs/RUN                               # RUN/report.html and RUN/figures; also while it trains
python scripts/report.py runs/A runs/B --out comparison         # side by side
python scripts/report.py --traces FILE.jsonl [FILE.jsonl …]     # the viewer; docs/evaluation.md has the form
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.reports.build import report_comparison, report_run, report_traces
from backtrack_mrt.runs.finished import read_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="run directory; several are compared")
    parser.add_argument("--traces", metavar="FILE", nargs="+", type=Path, help="trajectories, also of other programs")
    parser.add_argument(
        "--out", type=Path, help="directory of a comparison (default: comparison), or the viewer's file (traces.html)"
    )
    args = parser.parse_args()
    if bool(args.runs) == bool(args.traces):
        raise UserError("RUN", None, "runs or --traces, one of the two", "See --help.")
    if args.traces:
        written = report_traces(args.traces, args.out or Path("traces.html"))
    elif len(args.runs) == 1:
        written = report_run(args.runs[0])
    else:
        folder = args.out or Path("comparison")
        folder.mkdir(parents=True, exist_ok=True)
        written = report_comparison(Comparison([read_run(path) for path in args.runs]), folder)
    print(f"report: {written}")


if __name__ == "__main__":
    run_main(main)
