"""One run at a time in a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import processes

LOCK = "lock"  # the file's name; it stays, and says who was the last one


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` (made if it is not there) within the block. The system frees the lock when its
    owner dies, however it dies; on a file system without locks, such as some network ones, one line says that there is
    none. Raises UserError naming the owner if there is one, or if the folder cannot be written."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
        raise UserError("--output-dir", str(folder), reason, "Choose another --output-dir.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            reason = f"another run is at work in it ({path.read_text(encoding='utf-8').strip()})"
            raise UserError("--output-dir", str(folder), reason, "Wait for it, or choose another.") from error
        except OSError as error:
            told = f"{folder} cannot be locked ({error.strerror}): see to it that no other run works in it"
            processes.tell(told, sys.stderr)
        os.ftruncate(descriptor, 0)
        owner = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        os.write(descriptor, f"{owner}\n".encode())
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == [LOCK]:  # it was refused before it began
                path.unlink()
                folder.rmdir()
    finally:
        os.close(descriptor)
