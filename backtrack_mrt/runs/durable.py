"""Files and directories that are there whole or not at all, also after a crash, a kill or on a full disk.

All is written beside its place, forced to the disk and then renamed. A directory gets a manifest with the SHA-256 of
every file, so that damage is found before anything is loaded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from backtrack_mrt.errors import NO_SPACE, RunError

CARD = "README.md"  # for people: it may be rewritten, and is not in the manifest
MANIFEST = "manifest.json"
_STAGED = ".unfinished-"  # a left-over one is replaced by the next attempt
RESUME = "Free some space and go on with --resume."
_SPARE = 1 << 20  # bytes that must stay free: a disk filled to the last byte stops more than this program


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file to write that becomes the one at `path` when the block ends without an error. Raises RunError if the
    disk is full."""
    staged = unfinished(path)
    with space_told(path), _removed_on_error(staged):
        with staged.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
        _sync(path.parent)


def unfinished(path: Path) -> Path:
    """Where `write_directory` writes what becomes `path`."""
    return path.with_name(_STAGED + path.name)


def write_directory(path: Path, write: Callable[[Path], None], needed: int = 0, remedy: str = RESUME) -> None:
    """Have `write` fill an empty directory, add the manifest, and make it the one at `path`. needed: about how many
    bytes that takes; if they are not free, nothing is written. Raises RunError for a full disk, with the remedy."""
    staged = unfinished(path)
    remove(staged)
    free = shutil.disk_usage(path.parent).free
    if free < needed + _SPARE:
        raise _full(path, needed, free, remedy)
    with space_told(path, needed, remedy), _removed_on_error(staged):
        staged.mkdir()
        write(staged)
        _add_manifest(staged)
        remove(path)
        os.rename(staged, path)
        _sync(path.parent)


def damage(path: Path) -> str | None:
    """What is wrong with a directory that `write_directory` wrote: None if its files are all there, unchanged."""
    try:
        entries = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, entry in entries.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if (size := file.stat().st_size) != entry["bytes"]:
                return f"{name} has {size} bytes instead of {entry['bytes']}"
            if _sha256(file) != entry["sha256"]:
                return f"{name} was changed: its SHA-256 is another"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def size(path: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def remove(path: Path) -> None:
    """Delete a file or a directory if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _add_manifest(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CARD)
    entries = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files
    }
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1), encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file, or the names in a directory, to the disk. (Some file systems, such as Windows shares, take that of
    files alone.)"""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove(path)
        raise


@contextmanager
def space_told(path: Path, needed: int = 0, remedy: str = RESUME) -> Iterator[None]:
    """Say where there was no room, as a RunError. Libraries tell a full disk in many ways: by the system's number, by
    its words, or only by failing where no space is left."""
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else _SPARE
        numbered = isinstance(error, OSError) and error.errno in NO_SPACE
        spelt = any(f"os error {code}" in str(error) or os.strerror(code) in str(error) for code in NO_SPACE)
        if free < _SPARE or numbered or spelt or "inline_container" in str(error):  # torch's writer
            raise _full(path, needed, free, remedy) from error
        raise


def _full(path: Path, needed: int, free: int, remedy: str) -> RunError:
    told = f"{needed:,} bytes are needed" if needed else "there is no space left, or no file may be that large"
    reason = f"{path} cannot be written: {told}, {max(free - _SPARE, 0):,} are free"
    return RunError(reason, f"Nothing that was there before is lost. {remedy}")
