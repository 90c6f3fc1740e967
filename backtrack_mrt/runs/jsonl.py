"""JSON lines: one JSON value per line, in UTF-8. Every file of them is read and written here; and what becomes JSON.

What a crash left of a last line, without its end, is *torn*: who reads what a run appends leaves it out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.durable import replacing, space_told

T = TypeVar("T")


def line(row: Any) -> str:
    """A value as a line. Raises ValueError for a number that is not finite."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    # A lone surrogate has no UTF-8; written out, as `\ud800`, it is the JSON escape of itself.
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def write(path: Path, rows: Iterable[Any]) -> None:
    """Write a whole file, in place of an older one. Raises RunError for a full disk; the older one is there then."""
    with replacing(path) as file:
        file.writelines(map(line, rows))


def append(path: Path, rows: Iterable[Any]) -> None:
    """Write behind the lines that the file holds; it need not be there yet. Raises RunError for a full disk."""
    with space_told(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read() == b"\n" else b"\n")
        file.writelines(line(row).encode() for row in rows)


def cut_torn(path: Path) -> None:
    """Take a torn last line off the file, so that others can be appended."""
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def numbered(path: Path, *, torn: bool = False) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, and their numbers from 1. torn: leave out a torn last line."""
    with path.open("rb") as file:
        yield from numbered_lines(file, torn=torn)


def numbered_lines(file: BinaryIO, *, torn: bool = False) -> Iterator[tuple[int, bytes]]:
    """`numbered` of an open file."""
    for number, line in enumerate(file, 1):  # not splitlines(): a text may hold U+2028
        if torn and not line.endswith(b"\n"):
            return
        if not line.isspace():
            yield number, line


def parse(text: bytes, *, bad_numbers: bool = False) -> Any:
    """The JSON value of UTF-8 text. Raises ValueError saying why it is none, also for NaN, which JSON does not have
    (unless such numbers are to be read), for too deep nesting and for a number of too many digits."""
    try:
        return from_json(text, allow_inf_nan=bad_numbers)  # twice as fast as Python's own, which names the mistake
    except ValueError:
        pass
    try:
        return (_LENIENT if bad_numbers else _DECODER).decode(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read(
    path: Path, made: Callable[[Any], T], *, what: str, field: str, remedy: str, torn: bool = False
) -> Iterator[T]:
    """What `made` makes of the value of each line. Raises UserError for `field`, if the file cannot be read, or
    naming ``file:line``, if that is not `what`: where `made` raises ValueError (as pydantic does)."""
    try:
        for number, text in numbered(path, torn=torn):
            try:
                yield made(parse(text))
            except ValueError as error:
                reason = told(error) if isinstance(error, ValidationError) else str(error)
                raise UserError(field, f"{path}:{number}", f"not {what}: {reason}", remedy) from error
    except OSError as error:
        raise UserError(field, str(path), f"cannot be read: {error.strerror}", "Give a JSONL file.") from error


def read_whole(path: Path, made: Callable[[Any], T], *, what: str, field: str, remedy: str) -> T:
    """What `made` makes of the value of a JSON file. Raises UserError as `read` does."""
    try:
        return made(parse(path.read_bytes()))
    except ValueError as error:
        reason = told(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(field, str(path), f"not {what}: {reason}", remedy) from error
    except OSError as error:
        raise UserError(field, str(path), f"cannot be read: {error.strerror}", remedy) from error


def told(error: ValidationError) -> str:
    """The first mistake that pydantic found: where in the row, what stands there, what should."""
    first = error.errors(include_url=False, include_context=False)[0]
    parts = [f".{part}" if str(part).isidentifier() else f"[{part!r}]" for part in first["loc"]]
    place = "".join(parts).removeprefix(".")
    if first["type"] == "missing":
        return f"{place!r} is missing"
    said = first["msg"].removeprefix("Value error, ")
    return f"{place} = {_short(repr(first['input']))}: {said[0].lower()}{said[1:]}" if place else said


def _refused(constant: str) -> float:
    raise ValueError(f"not JSON: {constant}, which is null there")


_DECODER, _LENIENT = json.JSONDecoder(parse_constant=_refused), json.JSONDecoder()


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def json_text(data: Any) -> str:
    """The text of a JSON file; see `plain_json`."""
    return json.dumps(plain_json(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain_json(value: Any) -> Any:
    """Plain JSON data: numbers of other libraries become Python's, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(name): plain_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
