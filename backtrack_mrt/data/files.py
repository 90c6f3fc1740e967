"""Rows of local files: .jsonl (.ndjson), .json, .csv (.tsv), .parquet, .arrow, each also packed as .gz or .zst;
of folders with such files, and of those that `Dataset.save_to_disk` makes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO, cast

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.kinds import kind_of

RawRow = tuple[str, Any]  # where it stands (file:line), its columns: a mapping, if the row is as it should be

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PACKED = (".gz", ".zst")
_SAVED = ("state.json", "dataset_info.json")  # what `Dataset.save_to_disk` leaves beside the rows
_ABOUT = {*_SAVED, "dataset_dict.json", "dataset_infos.json"}  # JSON that holds no rows
_SPLIT = re.compile(r"(?<![a-z])(train|test|validation|valid|dev)(?![a-z])")


def is_local(spec: str) -> bool:
    """Whether `spec` names local files, by its ending, or a folder that is there."""
    return _kind(Path(spec)) in _READERS or Path(os.path.expanduser(spec)).is_dir()


def stem(spec: str) -> str:
    """The name of a file without its endings, or of a folder."""
    path = Path(spec)
    bare = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    return bare.stem if bare.suffix.lower() in _READERS else path.name


def by_number(rows: Iterable[Any], place: str) -> Iterator[RawRow]:
    """Rows that have no lines: by their numbers from 0."""
    return ((f"{place}[{number}]", row) for number, row in enumerate(rows))


def local_rows(place: str, field: str, spec: str) -> Iterator[RawRow]:
    """The rows of a file, of several (``DIR/*/train-*.parquet``) or of a folder. `field` and `spec` say where it was
    asked for: what a UserError blames."""
    for path in _files(place, field, spec):
        try:
            if path.is_dir():
                yield from _saved_rows(path)
                continue
            with _opened(path) as file:
                yield from _READERS[_kind(path)](file, str(path))
        except (OSError, UnicodeDecodeError, csv.Error, ValueError, EOFError, zlib.error) as error:
            reason = f"cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}"
            raise UserError(field, str(path), reason, f"Give a valid {_kind(path)} file in UTF-8.") from error


def _kind(path: Path) -> str:
    """The ending that says how a file is read, in lower case."""
    bare = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    return bare.suffix.lower()


def _files(place: str, field: str, spec: str) -> list[Path]:
    path = Path(os.path.expanduser(place))
    if path.is_dir():
        return _inside(path, field, spec)
    found = [path] if path.is_file() else [Path(name) for name in sorted(glob(str(path)))]
    if not found:
        reason = "no such file" if spec == place else f"no such file: {place}"
        raise UserError(field, spec, reason, "Give an existing .jsonl, .json, .csv or .parquet file.")
    return found


def _inside(folder: Path, field: str, spec: str) -> list[Path]:
    """The files of a folder (or of its `data/`), or the folder itself, if `save_to_disk` made it. Raises UserError for
    one that holds several splits."""
    if all((folder / name).is_file() for name in _SAVED):
        return [folder]
    inner = sorted(path.name for path in folder.iterdir() if (path / _SAVED[0]).is_file())
    if inner:
        raise UserError(
            field, spec, f"the folder holds the splits {', '.join(inner)}", f"Name one: {folder}/{inner[0]}."
        )
    if (kind := kind_of(folder)).runs:
        raise UserError(field, spec, f"it is {kind.what}, and no set of problems", "Give a file of problems.")
    for place in (folder, folder / "data"):
        entries = sorted(place.iterdir()) if place.is_dir() else []
        found = [path for path in entries if path.is_file() and _kind(path) in _READERS and path.name not in _ABOUT]
        splits = {match[1] for path in found if (match := _SPLIT.search(path.name.lower()))}
        if len(splits) > 1:
            reason = f"the folder holds several splits ({', '.join(sorted(splits))})"
            raise UserError(field, spec, reason, f"Name the files of one: '{place}/*{min(splits)}*'.")
        if found:
            return found
    raise UserError(field, spec, "the folder holds no rows", "Give one with .jsonl, .json, .csv or .parquet files.")


def _opened(path: Path) -> BinaryIO:
    """The file's contents, unpacked while they are read."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path))
    if path.suffix.lower() != ".zst":
        return path.open("rb")
    import pyarrow  # type: ignore[import-untyped]  # slow to import

    with pyarrow.input_stream(str(path), compression="zstd") as packed:
        return io.BytesIO(packed.read())


def _jsonl_rows(file: BinaryIO, name: str) -> Iterator[RawRow]:
    for number, line in jsonl.numbered_lines(file):
        yield f"{name}:{number}", _json(line, f"line {number}")


def _json_rows(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """A list of rows, or of each column's values; one row; or JSON lines under the wrong name."""
    text = file.read()
    first, _, rest = text.strip().partition(b"\n")
    if first.startswith((b"{", b"\xef\xbb\xbf{")) and first.rstrip().endswith(b"}") and rest and _is_json(first):
        yield from _jsonl_rows(io.BytesIO(text), name)
        return
    yield from by_number(_rows_in(_json(text, "the file")), name)


def _rows_in(read: Any) -> list[Any]:
    if isinstance(read, dict):
        lists = [value for value in read.values() if isinstance(value, list)]
        tables = [rows for rows in lists if rows and all(isinstance(row, dict) and "role" not in row for row in rows)]
        if len(read) == 1 and lists:  # {"data": [ … ]}
            return lists[0]
        if len(lists) == len(read) > 1 and len(set(map(len, lists))) == 1:  # {"question": [ … ], "answer": [ … ]}
            return [dict(zip(read, values, strict=True)) for values in zip(*lists, strict=True)]
        if len(tables) == 1:  # {"version": "1.0", "data": [ … ]}
            return tables[0]
        if any(isinstance(value, str) for value in read.values()):
            return [read]
    if not isinstance(read, list):
        raise ValueError("not a list of rows")
    return read


def _csv_rows(file: BinaryIO, name: str) -> Iterator[RawRow]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    head = next(text, "")
    separator = max(",\t;", key=head.count)
    header = [column.strip() for column in next(csv.reader([head], delimiter=separator), [])]
    if twice := [column for column in header if column and header.count(column) > 1]:
        raise ValueError(f"its header has two columns {twice[0]!r}")
    reader = csv.DictReader(text, header, delimiter=separator)
    for row in reader:
        if None in row:
            more = f"line {reader.line_num + 1} has more fields than the header"
            raise ValueError(f"{more}: put those that hold a {separator!r} in quotes")
        yield f"{name}:{reader.line_num + 1}", row


def _parquet_rows(file: BinaryIO, name: str) -> Iterator[RawRow]:
    from pyarrow import parquet  # type: ignore[import-untyped]  # slow to import

    with parquet.ParquetFile(file) as rows:
        yield from by_number((row for batch in rows.iter_batches() for row in batch.to_pylist()), name)


def _arrow_rows(file: BinaryIO, name: str) -> Iterator[RawRow]:
    from pyarrow import ipc  # slow to import

    content = file.read()
    rows = ipc.open_file(content) if content.startswith(b"ARROW1") else ipc.open_stream(content)
    yield from by_number(rows.read_all().to_pylist(), name)


def _saved_rows(folder: Path) -> Iterator[RawRow]:
    from datasets import load_from_disk  # seconds to import

    yield from by_number(load_from_disk(str(folder)), str(folder))


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[RawRow]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".arrow": _arrow_rows,
    ".parquet": _parquet_rows,
}


def _is_json(text: bytes) -> bool:
    try:
        jsonl.parse(text)
    except ValueError:
        return False
    return True


def _json(text: bytes, where: str) -> Any:
    try:
        read = jsonl.parse(text, bad_numbers=True)  # Python writes NaN where nothing is known
    except ValueError as error:
        raise ValueError(f"{where} is {error}") from error
    if _SURROGATE.search(text):
        try:
            json.dumps(read, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # no tokenizer, table or file takes it
            raise ValueError(f"{where} has half of a surrogate pair, {error.object[error.start]!a}") from error
    return read
