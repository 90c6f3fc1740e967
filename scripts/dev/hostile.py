#!/usr/bin/env python
"""Hostile inputs by kind: every one must end in one line per mistake and exit code 2 (or 1, where that is documented),
or be taken. Never a traceback, never a hang.

    python scripts/dev/hostile.py --n 600

Kinds: flags, YAML files, rows of data, files of data, chat templates, model folders, trajectories, rows to grade,
environment variables. The runs are stopped where they would begin to evaluate: what comes so far was taken. Exit code 1
if one fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hostile_cases import KINDS, Case

from backtrack_mrt.cli.main import run
from backtrack_mrt.errors import run_main
from backtrack_mrt.training.held_out import HeldOut

SECONDS = 60  # of wall time for one input: the machine may be busy
LONGEST = 4_000  # characters of what is told


class Taken(BaseException):
    """The run would begin."""


def outcome(case: Case, folder: Path) -> str:
    """ "refused", "taken", "failed" (exit code 1), or what is wrong with how it ended."""
    err = io.StringIO()
    try:
        with _within(folder, case, err), _at_most(SECONDS):
            run(list(map(str, case.arguments)))
        return "it did not end"
    except Taken:
        return "taken"
    except SystemExit as end:
        told = err.getvalue()
        if "Traceback" in told:
            return f"a traceback: {told[-300:]}"
        if end.code in (0, None):
            return "taken"
        if end.code == 1 and case.may_fail:
            return "failed"
        lines = [line for line in told.splitlines() if line.startswith("error: ")]
        if end.code != 2:
            return f"exit code {end.code}: {told[-300:]}"
        if not lines or len("".join(lines)) > LONGEST:
            return f"exit code {end.code} and told badly ({len(told)} characters): {told[-300:]}"
        return "refused"
    except BaseException:
        return f"a traceback: {traceback.format_exc()[-1500:]}"


@contextlib.contextmanager
def _within(folder: Path, case: Case, err: io.StringIO) -> Iterator[None]:
    def stop(*_: Any, **__: Any) -> None:
        raise Taken

    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(err),
        mock.patch.object(HeldOut, "evaluate", stop),
        mock.patch("backtrack_mrt.training.train._calibrate", stop),
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(b":quit\n"))),
        mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1", **case.environment}),
    ):
        yield


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def cases(n: int, seed: int, folder: Path) -> Iterator[tuple[Case, Path]]:
    """`n` inputs, kind after kind, each with a folder of its own that goes afterwards."""
    rng, kinds = random.Random(seed), list[Callable[[random.Random, Path], Case]](KINDS)
    for number in range(n):
        place = folder / str(number)
        place.mkdir()
        yield kinds[number % len(kinds)](rng, place), place
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=600, help="inputs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    args = parser.parse_args()
    ended = Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        for case, place in cases(args.n, args.seed, Path(folder)):
            found = outcome(case, place)
            if found not in ("refused", "taken", "failed"):
                print(f"WRONG: {case.kind}: {case.told}: {found}", flush=True)
                found = "wrong"
            ended[case.kind, found] += 1
    for kind in sorted({kind for kind, _ in ended}):
        counts = [f"{count} {how}" for (of, how), count in sorted(ended.items()) if of == kind]
        print(f"{kind}: {', '.join(counts)}")
    wrong = sum(count for (_, how), count in ended.items() if how == "wrong")
    print(f"{ended.total()} inputs, {wrong} wrong")
    return bool(wrong)


if __name__ == "__main__":
    run_main(main)
