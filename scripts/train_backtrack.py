#!/usr/bin/env python
"""Train a policy to backtrack: `python scripts/train_backtrack.py --algo mrt-rl`.

With `--compare rise star grpo` and `--seeds 0 1 2` several algorithms side by side, at equal sampled tokens."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from backtrack_mrt.cli.request import comparison_requests, load_config
from backtrack_mrt.config import RunRequest
from backtrack_mrt.errors import run_main
from backtrack_mrt.runs import processes
from backtrack_mrt.training.plan import plan
from backtrack_mrt.training.roofline import device


def main() -> None:
    request = load_config(sys.argv[1:], description=__doc__)
    if request.dry_run:
        sizes = plan(request.config, device(request.dry_run))
        if processes.is_main():
            print("\n".join(sizes.lines()))
        return
    if request.compare or request.seeds:
        compare_algorithms(request)
        return
    from backtrack_mrt.training.train import train  # late: a mistake in the config must not wait for torch

    result = train(request)
    if processes.is_main():
        Console().print(result.table())
        print(f"run directory: {request.config.run_path} (report.html, numbers: summary.json)")
    processes.leave()


def compare_algorithms(first: RunRequest) -> None:
    """Train several algorithms or seeds and put them side by side."""
    requests = comparison_requests(sys.argv[1:])
    algos = [request.config.algo_label for request in requests]
    folder = Path(first.config.output_dir or f"runs/{first.config.env_label}-{'-'.join(algos)}")
    from backtrack_mrt.reports.build import report_comparison
    from backtrack_mrt.training.compare import compare

    comparison = compare(requests, first.seeds or (first.config.seed,), folder)
    if processes.is_main():
        comparison.write(folder)
        report_comparison(comparison, folder)
        Console().print(comparison.table())
        print(f"comparison: {folder} (report.html, comparison.md, comparison.json)")
    processes.leave()


if __name__ == "__main__":
    run_main(main)
