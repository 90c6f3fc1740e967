"""Rows of a data set by name: a local file (.jsonl, .json, .csv, .parquet) or a set on the hub. What the columns mean
is for others to say."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backtrack_mrt.errors import UserError
from backtrack_mrt.hub import rely_on_cache_if_unreachable

Row = tuple[str, Any]  # where it stands (file:line), its columns: a mapping, if the row is as it should be

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<subset>[\w.-]+))?(?::(?P<split>.+))?")


def is_file(spec: str) -> bool:
    """Whether `spec` names a local file, by its suffix."""
    return Path(spec).suffix in _READERS


def read_rows(spec: str, field: str) -> tuple[str, list[Row]]:
    """The set's short name and its rows, at least one. `field` is what a UserError blames: raised for a set that is
    missing, cannot be read, is empty, or has a first row without named columns."""
    path = Path(spec).expanduser()
    if reader := _READERS.get(path.suffix):
        if not path.is_file():
            raise UserError(field, spec, "no such file", "Give an existing .jsonl, .json, .csv or .parquet file.")
        try:
            return path.stem, _checked(list(reader(path)), spec, field)
        except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
            reason = f"cannot be read: {str(error).splitlines()[0]}"
            raise UserError(field, spec, reason, f"Give a valid {path.suffix} file in UTF-8.") from error
    match = _HUB.fullmatch(spec)
    if match is None or path.exists():
        remedy = "Give signs/SPLIT, a .jsonl, .json, .csv or .parquet file, or OWNER/NAME[/SUBSET][:SPLIT]."
        raise UserError(field, spec, "not a problem set", remedy)
    return match["name"].rpartition("/")[2], _checked(list(_hub_rows(match, spec, field)), spec, field)


def column(row: dict[str, Any], wanted: tuple[str, ...], spec: str, field: str) -> str:
    """The first of the `wanted` columns that `row` has. Raises UserError."""
    found = next((name for name in wanted if name in row), None)
    if found is None:
        have = ", ".join(map(str, row))
        reason = f"no column {' or '.join(map(repr, wanted))}, only: {have}"
        raise UserError(field, spec, reason, "Rename the column that holds it.")
    return found


def _checked(rows: list[Row], spec: str, field: str) -> list[Row]:
    if not rows:
        raise UserError(field, spec, "it has no rows", "Give a file with at least one problem.")
    where, first = rows[0]
    if not isinstance(first, dict):
        raise UserError(field, spec, f"{where} is not an object", "Write one object with named columns per row.")
    return rows


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", _json(line, f"line {number}")


def _json_rows(path: Path) -> Iterator[Row]:
    rows = _json(path.read_text(encoding="utf-8-sig"), "the file")
    if not isinstance(rows, list):
        raise ValueError("not a list of rows")
    for index, row in enumerate(rows):
        yield f"{path}[{index}]", row


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield f"{path}:{reader.line_num}", row


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import parquet  # type: ignore[import-untyped]  # slow to import

    for index, row in enumerate(parquet.read_table(path).to_pylist()):
        yield f"{path}[{index}]", row


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _hub_rows(match: re.Match[str], spec: str, field: str) -> Iterator[Row]:
    rely_on_cache_if_unreachable()
    from datasets import load_dataset  # seconds to import

    split = match["split"] or "train"
    try:
        rows = load_dataset(match["name"], match["subset"], split=split)
    except Exception as error:  # offline, no such name, no such split, no access: the library's word tells which
        reason = f"cannot be had from the hub ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
        remedy = (
            f"Without a network, fetch it elsewhere (`hf download --repo-type dataset {match['name']}`), "
            f"or give a local file: --{field} FILE.jsonl."
        )
        raise UserError(field, spec, reason, remedy) from error
    for index, row in enumerate(rows):
        yield f"{spec}[{index}]", row


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: {error.msg} at column {error.colno}") from error
