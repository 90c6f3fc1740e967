"""Rows of a data set by place, local (`backtrack_mrt.data.files`) or on the hub. What their columns mean is for others
to say."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtrack_mrt.data.files import RawRow, by_number, is_local, local_rows
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.hub import rely_on_cache_if_unreachable

HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<subset>[\w.-]+))?(?::(?P<split>.+))?")


def read_rows(place: str, field: str, spec: str) -> Iterator[RawRow]:
    """The rows of files, of a folder, or of a set on the hub: at least one. `field` and `spec` say where it was asked
    for: what a UserError blames, which is raised for a set that is missing, cannot be read, is empty, or has a first
    row without named columns."""
    rows: Iterator[RawRow]
    if is_local(place):
        rows = local_rows(place, field, spec)
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
    found = next((name for name in wanted if cell(row, name) is not None or name in row), None)
    if found is None:
        have = ", ".join(map(str, row))
        reason = f"no column {' or '.join(map(repr, wanted))}, only: {have}"
        raise UserError(field, spec, reason, "Rename the column that holds it, or name it in data.sets.")
    return found


def cell(row: Mapping[str, Any], name: str) -> Any:
    """What stands in a column, or in one inside it (``reward_model.ground_truth``), which may be written as JSON;
    None if there is no such."""
    if name in row:
        return row[name]
    outer, _, inner = name.partition(".")
    nested = row.get(outer)
    if inner and isinstance(nested, str):
        with contextlib.suppress(ValueError, RecursionError):
            nested = json.loads(nested)
    return cell(nested, inner) if inner and isinstance(nested, Mapping) else None


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
    batches = rows.with_format("arrow").iter(1000)  # much faster than row by row
    yield from by_number((row for batch in batches for row in batch.to_pylist()), place)
