"""What a run reads beside its config, told by digests: ``inputs.json``. A resumed run is to read the same.

A digest is the beginning of a SHA-256 in hexadecimal digits, by the name of what was read (``data.train``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import TypeAdapter

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.durable import replacing
from backtrack_mrt.runs.jsonl import json_text, read_whole
from backtrack_mrt.runs.processes import is_main, tell

INPUTS = "inputs.json"
_DIGITS = 16
_DIGESTS = TypeAdapter(dict[str, str])


def digest(parts: Iterable[bytes]) -> str:
    """Tells sequences of byte strings apart."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()[:_DIGITS]


def digest_of_files(paths: Iterable[Path]) -> str:
    """Tells contents of files apart, whatever they are called."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:_DIGITS]


def check_inputs(run: Path, now: Mapping[str, str], accept_changes: bool) -> None:
    """Compare with what the run in that directory read when it began, if that is known. Raises UserError for what is
    another, unless that is accepted; then it is said."""
    before = _read(run / INPUTS)
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)] if before else []
    if not changed:
        return
    if not accept_changes:
        reason = f"what it reads is not what it read when it began: {', '.join(changed)}"
        remedy = "Put it back as it was, resume with --accept-changes, or start anew elsewhere."
        raise UserError("--output-dir", str(run), reason, remedy)
    tell(f"resuming {run} although it reads something else now: {', '.join(changed)}")


def save_inputs(run: Path, now: Mapping[str, str]) -> None:
    """Keep the digests in the run directory."""
    if is_main():
        with replacing(run / INPUTS) as file:
            file.write(json_text(dict(now)))


def _read(path: Path) -> dict[str, str]:
    """The digests that were kept; none where there are none."""
    if not path.exists():
        return {}
    remedy = "Delete it: the run goes on unchecked then."
    return read_whole(path, _DIGESTS.validate_python, what="a mapping of digests", field=INPUTS, remedy=remedy)
