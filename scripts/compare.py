#!/usr/bin/env python
"""Compare finished runs: python scripts/compare.py RUN RUN … --out FOLDER

Runs of one algorithm with several seeds are averaged. They may differ in algorithm and training, not in model, data,
protocol, prover or evaluation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from backtrack_mrt.errors import run_main
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.reports.build import report_comparison
from backtrack_mrt.runs.finished import read_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run directory; the first is the reference")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to write report.html, comparison.md, comparison.json and figures/",
    )
    args = parser.parse_args()
    comparison = Comparison([read_run(path) for path in args.runs])
    Console().print(comparison.table())
    if args.out:
        comparison.write(args.out)
        report_comparison(comparison, args.out)
        print(f"comparison: {args.out}")


if __name__ == "__main__":
    run_main(main)
