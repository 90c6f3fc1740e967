#!/usr/bin/env python
"""What keeping a run safe costs: the time of each guard over that of the step without it.

    python scripts/bench/guards.py --steps 40

A guard's processor time is that of our method less that of TRL's inside it, in the same step of the same run. Takes
further flags of `backtrack-mrt train`; a checkpoint is saved in every step, and its cost spread over
`training.save_every` of the config. The intervals (95 %) are bootstrapped over the steps."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import check_steps

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import run_main

GUARDS = {
    "training_step": "safe points, finite losses, memory",
    "_get_grad_norm": "finite gradients",
    "log": "skipped steps in the log",
    "_save_checkpoint": "whole checkpoints with a manifest",
}
Times = dict[str, dict[int, float]]  # seconds by method and step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="updates; the first one warms up and is not counted")
    options, flags = parser.parse_known_args()
    check_steps(options.steps, 1, "--steps")
    every = read_request(flags).config.training.save_every or options.steps
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["--training.steps", str(options.steps), "--training.save_every", "1", "--data.eval_size", "2"]
        request = read_request([*flags, *fixed, "--output-dir", str(Path(folder) / "run")])
        from trl import GRPOTrainer

        from backtrack_mrt.training.safety import SafeTrainer
        from backtrack_mrt.training.train import train

        ours, theirs = timed(SafeTrainer), timed(GRPOTrainer)
        train(request)
    steps = range(1, options.steps)
    plain = np.array([theirs["training_step"][step] + theirs["_get_grad_norm"][step] for step in steps])
    print(f"{len(steps)} steps of {1000 * np.median(plain):.0f} ms (median), a checkpoint every {every}")
    total = np.zeros(len(steps))
    for method, what in GUARDS.items():
        spent = np.array([ours[method][step] - theirs[method][step] for step in steps])
        total += (spent := spent / (every if method == "_save_checkpoint" else 1))
        print(f"{what:36}{told(spent, plain)}")
    print(f"{'all of them':36}{told(total, plain)}")


def timed(owner: type) -> Times:
    """Have the methods of a class keep their times."""
    times: Times = {method: defaultdict(float) for method in GUARDS}

    def keeping(method: str) -> Callable[..., Any]:
        inner = getattr(owner, method)

        def kept(self: Any, *args: Any, **settings: Any) -> Any:
            step = self.state.global_step - (method in ("log", "_save_checkpoint"))  # these come when it is counted
            began = time.process_time()
            try:
                return inner(self, *args, **settings)
            finally:
                times[method][step] += time.process_time() - began

        return kept

    for method in GUARDS:
        setattr(owner, method, keeping(method))
    return times


def told(spent: np.ndarray[Any, Any], plain: np.ndarray[Any, Any]) -> str:
    """The ratio of the step with the guard to the step without, with its interval."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(plain), (4000, len(plain)))
    low, high = np.quantile(1 + spent[drawn].sum(1) / plain[drawn].sum(1), (0.025, 0.975))
    return f"{1000 * spent.mean():8.2f} ms   ratio {1 + spent.sum() / plain.sum():.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    run_main(main)
