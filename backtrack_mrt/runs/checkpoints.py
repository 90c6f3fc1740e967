"""The checkpoints of a run: written whole or not at all, verified before use, the newest few kept.

checkpoints/step_000016/   what the trainer saved after 16 updates, `run.json`, and the manifest
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.runs import durable, processes

RECORD = "run.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. record: what its run saved beside the trainer's state."""

    path: Path
    step: int
    record: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in `folder`, of which the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, write: Callable[[Path], None], record: Mapping[str, Any], needed: int) -> None:
        """Save what `write` puts into a directory, and the record. All processes call it, and `write` in each of them
        adds to the same directory, made by the main one. needed: bytes, if no earlier one can tell. Raises RunError for
        a full disk; the earlier checkpoints are intact then."""

        def write_all(folder: Path) -> None:
            write(folder)
            (folder / RECORD).write_text(json.dumps({**record, "processes": processes.count()}), encoding="utf-8")

        processes.wait()
        if processes.is_main():
            earlier = self._paths()
            durable.write_directory(self._path(step), write_all, max([needed, *map(durable.size, earlier[-1:])]))
            for path in self._paths()[: -self.keep]:
                durable.remove(path)
        else:
            write(durable.unfinished(self._path(step)))
        processes.wait()

    def saved(self, step: int) -> bool:
        """Whether there is an undamaged checkpoint of that step."""
        return durable.damage(self._path(step)) is None

    def newest(self) -> Checkpoint | None:
        """The newest undamaged one; None if none was saved. Each one passed over is named on stderr. Raises RunError
        if all are damaged, UserError if another number of processes saved it."""
        paths = self._paths()
        for path in reversed(paths):
            if reason := durable.damage(path):
                processes.tell(f"checkpoint {path} is passed over: {reason}", file=sys.stderr)
                continue
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            if record["processes"] != processes.count():
                reason = f"it was saved by {record['processes']} processes, and {processes.count()} would go on with it"
                raise UserError("--resume", str(path), reason, "Resume with as many as before.")
            return Checkpoint(path, int(path.name.removeprefix("step_")), record)
        if paths:
            raise RunError(f"no checkpoint in {self.folder} is undamaged", "Start anew with --overwrite.")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}"

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step_*") if path.is_dir())
