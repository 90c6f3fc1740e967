"""`backtrack-mrt` in this process, as a process would have told it."""

from __future__ import annotations

import contextlib
import io
import subprocess
from pathlib import Path
from unittest import mock

from backtrack_mrt.cli.main import run


def command(*arguments: object, cwd: Path = Path(), stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command line in `cwd`: its exit code, and what it printed."""
    line = list(map(str, arguments))
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin.encode(errors="surrogateescape")))
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch("sys.stdin", given),
    ):
        try:
            run(line)
        except SystemExit as end:
            return subprocess.CompletedProcess(line, int(end.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("it did not end")
