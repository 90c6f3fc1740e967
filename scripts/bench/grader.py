#!/usr/bin/env python
"""The grader as a service: throughput, worst latency and memory over real answers with bombs among them.

    python scripts/bench/grader.py --n 10000 --bombs 0.02

Rows: labelled attempts of other models and gold answers from ../shared/data (in dollars, which is right, and beside
another problem's, which is wrong), or generated ones; bombs are texts that would hang or blow up what reads them. About
half of them pass the guards and must be killed. Exit code 1 if a verdict is not what it must be; on a busy machine
honest answers may run out of their wall time, too.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from backtrack_mrt.errors import run_main
from backtrack_mrt.grading import Limits, MathGrader, Verdict

DATA = Path(__file__).parents[3] / "shared" / "data"
GOLDS = ("math500", "minerva_math", "aime24", "amc23", "math_train", "gsm8k_test", "asdiv")
RIGHT, WRONG, ANY_BUT_RIGHT = {Verdict.RIGHT}, {Verdict.WRONG, Verdict.UNPARSABLE}, set(Verdict) - {Verdict.RIGHT}


@dataclass(frozen=True)
class Row:
    """An answer to grade, and the verdicts that are right for it."""

    gold: str
    answer: str
    expected: set[Verdict]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="grades (default: %(default)s)")
    parser.add_argument("--bombs", type=float, default=0.02, help="share of bombs (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes and threads that ask (default: 2)")
    parser.add_argument("--cpu-s", type=float, default=Limits.cpu_s, help="CPU seconds of a question (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows (default: 0)")
    parser.add_argument("--generated", action="store_true", help="no files: generated answers only")
    args = parser.parse_args()
    rows = mixed(args.n, args.bombs, args.seed, None if args.generated or not DATA.is_dir() else DATA)
    with MathGrader(workers=args.workers, limits=Limits(cpu_s=args.cpu_s)) as grader:
        with ThreadPoolExecutor(args.workers) as threads:  # every worker has started, and has loaded what it needs
            list(threads.map(lambda k: grader.grade(rf"{k}\sqrt{{2}}", rf"\sqrt{{{2 * k * k}}}"), range(2, 40)))
            before, began = memory(), time.perf_counter()
            graded = list(threads.map(lambda row: timed(grader, row), rows))
            elapsed = time.perf_counter() - began
        after = memory()
    seconds = np.array([took for _, took in graded])
    odd = [(row, verdict) for row, (verdict, _) in zip(rows, graded, strict=True) if verdict not in row.expected]
    counts = Counter(str(verdict) for verdict, _ in graded)
    print(f"{len(rows)} grades, {sum(row.expected == ANY_BUT_RIGHT for row in rows)} bombs, {args.workers} workers")
    print(f"{elapsed:.1f} s, {len(rows) / elapsed:.0f} grades/s")
    print("latency: " + ", ".join(f"p{p:g} {1e3 * np.percentile(seconds, p):.2f} ms" for p in (50, 95, 99, 100)))
    print(f"memory before: {before}")
    print(f"memory after: {after}")
    print("verdicts: " + ", ".join(f"{name} {counts[name]}" for name in map(str, Verdict)))
    for row, verdict in odd[:20]:
        print(f"NOT AS EXPECTED: {verdict} for gold {row.gold[:60]!r}, answer {row.answer[:60]!r}")
    print(f"{len(odd)} verdicts not as expected")
    return bool(odd)


def mixed(n: int, bombs: float, seed: int, data: Path | None) -> list[Row]:
    """`n` rows in random order."""
    exploding = list(islice(bomb_rows(), round(n * bombs)))
    honest = list(real_rows(data) if data else islice(generated_rows(), n))
    rng = random.Random(seed)
    while len(honest) < n - len(exploding):
        honest += islice(generated_rows(), n)
    rows = rng.sample(honest, n - len(exploding)) + exploding
    rng.shuffle(rows)
    return rows


def timed(grader: MathGrader, row: Row) -> tuple[Verdict, float]:
    start = time.perf_counter()
    return grader.grade(row.gold, row.answer), time.perf_counter() - start


def real_rows(data: Path) -> Iterator[Row]:
    for row in read(data / "gsm8k_model_attempts.jsonl"):
        yield Row(row["answer"], row["attempt"].rpartition("A:")[2], RIGHT if row["is_correct"] else WRONG)
    for name in GOLDS:
        golds = [row["answer"] for row in read(data / f"{name}.jsonl") if row["answer"].strip("- ")]
        yield from (Row(gold, f"${gold}$.", RIGHT) for gold in golds)
        for gold, other in pairwise(golds):
            if re.findall(r"\d+", gold) != re.findall(r"\d+", other):  # else they may be the same: 5 and x = 5
                yield Row(gold, other, WRONG)


def generated_rows() -> Iterator[Row]:
    for k in range(1, 10_000):
        yield Row(f"{k}/8", rf"\frac{{{2 * k}}}{{16}}", RIGHT)
        yield Row(f"{k}", f"{k}.5", WRONG)
        yield Row(f"{k}", f"{k + 1:,}", WRONG)
        yield Row(rf"{k}\sqrt{{3}}", rf"\sqrt{{{3 * k * k}}}", RIGHT)
        yield Row(rf"{k}\sqrt{{3}}", rf"\sqrt{{{3 * k * k}}} + 1", WRONG)


def bomb_rows() -> Iterator[Row]:
    """Half of them pass the guards."""
    for k in range(1000):
        for answer in (
            rf"\binom{{{9999 - k}^{{999}}}}{{{9999 - k}^{{99}}}}",
            f"10^{{10^{{{10 + k}}}}}",
            rf"\binom{{{9998 - k}^{{998}}}}{{{9998 - k}^{{98}}}} + x",
            ["{" * (500 + k), "9" * (5000 + k), "(" * (30 + k) + "x" + ")" * (30 + k), f"{k}" + "!" * 9][k % 4],
        ):
            yield Row(r"\sqrt{2}", answer, ANY_BUT_RIGHT)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def family() -> list[int]:
    """This process and all below it."""
    found, open_ = [], [Path("/proc/self").resolve().name]
    while open_:
        process = open_.pop()
        found.append(int(process))
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            open_ += children.read_text().split()
    return found


def memory() -> str:
    """Resident memory of this process, and of each one below it (pages that they share count in each)."""
    sizes = []
    for process in family():
        status = Path(f"/proc/{process}/status").read_text()
        sizes.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) >> 10)
    return f"{sizes[0]} MiB, its workers {' + '.join(map(str, sizes[1:]))} MiB"


if __name__ == "__main__":
    run_main(main)
