#!/usr/bin/env python
"""Size and opening time of the trace viewer.

python scripts/bench/report.py runs/RUN/trajectories/evaluation_trained.jsonl --n 100 1000 10000

The file's trajectories are repeated under new problem names. Processor seconds to write the page; then wall time in a
headless Chromium, from disk: until the list is there, until a chosen trace is, and until the list is sorted anew.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.reports.build import report_traces
from backtrack_mrt.runs import environment
from backtrack_mrt.runs.records import read_trajectories, write_trajectories
from backtrack_mrt.types import Scored

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--n", type=int, nargs="+", default=[100, 1000, 10_000], metavar="N")
    parser.add_argument("--repetitions", type=int, default=3, help="openings, of which the medians are shown")
    args = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise UserError("chromium", None, "it is not installed", "`make test-browser` installs it where it can.")
    from playwright.sync_api import sync_playwright

    environment.prepare()  # as the program does
    scored = read_trajectories(args.file)
    print(f"{'n':>7} {'write s':>8} {'MB':>7} {'list ms':>8} {'trace ms':>9} {'sort ms':>8}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for n in args.n:
            write_trajectories(Path(folder) / "traces.jsonl", [repeated(scored, i) for i in range(n)])
            start = time.process_time()
            page = report_traces([Path(folder) / "traces.jsonl"], Path(folder) / "traces.html")
            seconds, size = time.process_time() - start, page.stat().st_size / 1e6
            times = zip(*(opened(browser, page, n) for _ in range(args.repetitions)), strict=True)
            shown, chosen, sorted_ = (1000 * median(column) for column in times)
            print(f"{n:>7} {seconds:>8.1f} {size:>7.2f} {shown:>8.0f} {chosen:>9.0f} {sorted_:>8.0f}", flush=True)
        browser.close()


def repeated(scored: list[Scored], i: int) -> Scored:
    """Trajectory `i` of a file that has no end."""
    one = scored[i % len(scored)]
    problem = replace(one.trajectory.problem, id=f"{one.trajectory.problem.id}-{i // len(scored)}")
    return replace(one, trajectory=replace(one.trajectory, problem=problem))


def opened(browser: Any, path: Path, n: int) -> tuple[float, float, float]:
    """Seconds until the list, a trace in the middle, and the sorted list are there."""
    page = browser.new_page()
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector("#rows tr")
    shown = time.perf_counter()
    page.goto(f"{path.as_uri()}#trace=traces%3A{n // 2}")
    page.wait_for_selector("#shown article")
    chosen = time.perf_counter()
    page.select_option("select[name=sort]", "-regret")
    page.wait_for_url("**sort=-regret**")
    finished = time.perf_counter()
    page.close()
    return shown - start, chosen - shown, finished - chosen


if __name__ == "__main__":
    run_main(main)
