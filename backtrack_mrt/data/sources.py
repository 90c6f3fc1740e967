"""Rows of a data set by place: local files (.jsonl, .json, .csv, .parquet) or a set on the hub. What their columns mean
is for others to say."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.hub import rely_on_cache_if_unreachable

RawRow = tuple[str, Any]  # where it stands (file:line), its columns: a mapping, if the row is as it should be

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<subset>[\w.-]+))?(?::(?P<split>.+))?")


def is_file(spec: str) -> bool:
    """Whether `spec` names a local file, by its suffix."""
    return Path(spec).suffix in _READERS


def read_rows(place: str, field: str, spec: str) -> Iterator[RawRow]:
    """The rows of a file, of several (``DIR/*/train-*.parquet``), or of a set on the hub: at least one. `field` and
    `spec` say where it was asked for: what a UserError blames, which is raised for a set that is missing, cannot be
    read, is empty, or has a first row without named columns."""
    rows: Iterator[RawRow]
    if is_file(place):
        rows = (row for path in _files(place, field, spec) for row in _file_rows(path, field))
    elif match := HUB.fullmatch(place):
        rows = _hub_rows(match, place, field, spec)
    else:
        remedy = "Give a .jsonl, .json, .csv or .parquet file, or OWNER/NAME[/SUBSET][:SPLIT]."
        raise UserError(field, spec, f"{place} is neither a file nor a set on the hub", remedy)
    first = next(rows, None)
    if first is None:
        raise UserError(field, spec, "it has no rows", "Give a file with at least one problem.")
    if not isinstance(first[1], dict):
        raise UserError(field, spec, f"{first[0]} is not an object", "Write one object with named columns per row.")
    yield first
    yield from rows


def column(row: Mapping[str, Any], wanted: Sequence[str], field: str, spec: str) -> str:
    """The first of the `wanted` columns that `row` has. Raises UserError."""
    found = next((name for name in wanted if name in row), None)
    if found is None:
        have = ", ".join(map(str, row))
        reason = f"no column {' or '.join(map(repr, wanted))}, only: {have}"
        raise UserError(field, spec, reason, "Rename the column that holds it, or name it in data.sets.")
    return found


def _files(place: str, field: str, spec: str) -> list[Path]:
    path = Path(place).expanduser()
    found = [path] if path.is_file() else [Path(name) for name in sorted(glob(str(path)))]
    if not found:
        reason = "no such file" if spec == place else f"no such file: {place}"
        raise UserError(field, spec, reason, "Give an existing .jsonl, .json, .csv or .parquet file.")
    return found


def _file_rows(path: Path, field: str) -> Iterator[RawRow]:
    try:
        yield from _READERS[path.suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        reason = f"cannot be read: {str(error).splitlines()[0]}"
        raise UserError(field, str(path), reason, f"Give a valid {path.suffix} file in UTF-8.") from error


def _jsonl_rows(path: Path) -> Iterator[RawRow]:
    for number, line in jsonl.numbered(path):
        yield f"{path}:{number}", _json(line, f"line {number}")


def _json_rows(path: Path) -> Iterator[RawRow]:
    rows = _json(path.read_bytes(), "the file")
    if not isinstance(rows, list):
        raise ValueError("not a list of rows")
    for index, row in enumerate(rows):
        yield f"{path}[{index}]", row


def _csv_rows(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield f"{path}:{reader.line_num}", row


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    from pyarrow import parquet  # type: ignore[import-untyped]  # slow to import

    index = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                yield f"{path}[{index}]", row
                index += 1


_READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _hub_rows(match: re.Match[str], place: str, field: str, spec: str) -> Iterator[RawRow]:
    rely_on_cache_if_unreachable()
    from datasets import load_dataset  # seconds to import

    name = match["name"]
    try:
        rows = load_dataset(name, match["subset"], split=match["split"] or "train")
    except Exception as error:  # offline, no such name, no such split, no access: the library's word tells which
        said = (str(error).splitlines() or [""])[0]
        reason = f"{place} cannot be had from the hub ({type(error).__name__}: {said})"
        known_as = "" if spec == place else f"{spec.partition('=')[0]}="
        remedy = (
            f"Where there is a network: `hf download --repo-type dataset {name} --local-dir DIR`. Then name its files "
            f"instead: {known_as}DIR/FILE.parquet (or .jsonl, .json, .csv)."
        )
        if "gated" in said.lower():
            remedy = f"Accept its terms on the hub's page of {name} and log in with `hf auth login`. {remedy}"
        raise UserError(field, spec, reason, remedy) from error
    index = 0
    for batch in rows.with_format("arrow").iter(1000):  # much faster than row by row
        for row in batch.to_pylist():
            yield f"{place}[{index}]", row
            index += 1


def _json(text: bytes, where: str) -> Any:
    try:
        read = jsonl.parse(text)
    except ValueError as error:
        raise ValueError(f"{where} is {error}") from error
    if _SURROGATE.search(text):
        try:
            json.dumps(read, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # no tokenizer, table or file takes it
            raise ValueError(f"{where} has half of a surrogate pair, {error.object[error.start]!a}") from error
    return read
