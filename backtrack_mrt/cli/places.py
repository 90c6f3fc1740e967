"""Paths on the command line, and where a command is to write: tried before the work is done."""

from __future__ import annotations

import os
from pathlib import Path

from backtrack_mrt.errors import UserError


def typed_path(text: str) -> Path:
    """A path as it was typed: behind ``=`` and in quotes the shell leaves ``~`` as it is."""
    return Path(os.path.expanduser(text))


def check_file(field: str, path: Path) -> None:
    """Raises UserError, which blames `field`, where no file can be written at `path`. What is there stays as it is."""
    if not path.parent.is_dir():
        raise UserError(field, str(path), "its directory does not exist", "Make it, or name another file.")
    there = path.exists()
    try:
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise UserError(field, str(path), f"cannot be written: {error.strerror}", "Name another file.") from error


def check_new_folder(field: str, path: Path) -> None:
    """`check_folder` for one that is to hold nothing else: raises UserError where there is something at `path`, too."""
    if path.exists():
        raise UserError(field, str(path), "exists already", "Name a new directory.")
    check_folder(field, path)


def check_folder(field: str, path: Path) -> None:
    """Raises UserError where `path` can neither be made, with all folders above it, nor written into."""
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
        for place in made:
            place.rmdir()
    except OSError as error:
        raise UserError(field, str(path), f"cannot be made: {error.strerror}", "Name another folder.") from error
    if not writable:
        raise UserError(field, str(path), "cannot be written into", "Name another folder.")
