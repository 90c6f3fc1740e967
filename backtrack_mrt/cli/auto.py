"""``--config auto`` among the files of a command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from backtrack_mrt.config import Config
from backtrack_mrt.config.extending import read_layers
from backtrack_mrt.config.files import Layer, Merged, resolve
from backtrack_mrt.errors import Mistakes
from backtrack_mrt.runs.processes import tell

AUTO = "auto"
_TOLD: set[str] = set()  # lines that this process has told


def read_files(
    names: Sequence[str], above: Layer, planned_for: str | None = None, training: bool = True
) -> list[Layer]:
    """The layers of files, left to right; `above` is what the command line says, which is not among them. In the place
    of ``auto`` stands what `training.auto` derives from the model that the others name, for the device `planned_for`.
    Raises UserError for files that cannot be read."""
    mistakes, layers = Mistakes(), list[Layer]()
    place = None
    for name in names:
        if name == AUTO:
            place = len(layers)
            continue
        with mistakes.collected():
            layers += read_layers(name)
    if mistakes:  # what such a file says is not known, so the rest cannot be judged
        mistakes += above.mistakes
        mistakes.tell()
    if place is None:
        return layers
    merged = Merged([*layers, above])
    if merged.check.mistakes or merged.check.wrong:
        merged.config(training)  # tells them
    under, over = layers[:place], [*layers[place:], above]

    def laid(values: Mapping[str, Any]) -> Config:
        return resolve([*under, Layer.of(values, "--config auto"), *over], training)

    from backtrack_mrt.training.auto import derive  # late: it loads torch

    found = derive(merged.values, laid, planned_for)
    for line in found.lines(laid(found.values)):
        if line not in _TOLD:
            _TOLD.add(line)
            tell(f"auto: {line}", sys.stderr)
    return [*under, Layer.of(found.values, "--config auto"), *layers[place:]]
