"""Signals and files where the terminal or the file system is of another kind."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import stat
from pathlib import Path

import pytest

from backtrack_mrt.errors import Interrupted
from backtrack_mrt.runs.durable import damage, replacing, write_directory
from backtrack_mrt.runs.interrupts import deferred, safe_point


@pytest.mark.parametrize("stderr", [io.StringIO(), None], ids=["a notebook's", "none"])
def test_a_signal_where_stderr_is_no_file(stderr: io.StringIO | None) -> None:
    with contextlib.redirect_stderr(stderr), deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            safe_point()


def test_directories_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on shares of Windows."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def write(folder: Path) -> None:
        (folder / "file").write_text("whole")

    monkeypatch.setattr(os, "fsync", fsync)
    write_directory(tmp_path / "folder", write)
    assert damage(tmp_path / "folder") is None
    with replacing(tmp_path / "file") as file:
        file.write("whole")
    assert (tmp_path / "file").read_text() == "whole"
