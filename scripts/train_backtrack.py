#!/usr/bin/env python
"""Train a policy to backtrack: `python scripts/train_backtrack.py --algo mrt-rl`."""

from __future__ import annotations

import sys

from rich.console import Console

from backtrack_mrt.cli import load_config
from backtrack_mrt.errors import run_main
from backtrack_mrt.planning import plan


def main() -> None:
    request = load_config(sys.argv[1:], description=__doc__)
    if request.dry_run:
        print("\n".join(plan(request.config).lines()))
        return
    from backtrack_mrt.train import train  # late: a mistake in the config must not wait for torch

    result = train(request)
    Console().print(result.table())
    print(f"run directory: {request.config.run_path} (plot: report.png, numbers: summary.json)")


if __name__ == "__main__":
    run_main(main)
