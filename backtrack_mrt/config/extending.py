"""Files that begin with others: ``extends: [llama31_8b.yaml]`` has that file's settings below the file's own.

What is extended is a shipped config or a file, relative to the one that says so; it may extend others in turn.
"""

from __future__ import annotations

from pathlib import Path

from backtrack_mrt.config.files import Layer, read_layer, shipped_configs
from backtrack_mrt.errors import UserError

EXTENDS = "extends"


def read_layers(name: str, above: tuple[str, ...] = ()) -> list[Layer]:
    """The layers of a file, those that it extends first. `above`: the files that have led here. Raises UserError."""
    layer = read_layer(name)
    said = layer.said.get(EXTENDS, EXTENDS)
    extended = layer.values.get(EXTENDS, [])
    extended = [extended] if isinstance(extended, str) else extended
    if not isinstance(extended, list) or not all(isinstance(other, str) for other in extended):
        raise UserError(said, extended, "no name of a file", "Write `extends: FILE.yaml`, or a list of files.")
    layers = []
    for other in extended:
        place = other if other in shipped_configs() else str(Path(name).parent / other)
        if place in (*above, name):
            raise UserError(said, other, "it extends this file in turn", "Leave out one of the two.")
        layers += read_layers(place, (*above, name))
    own = {key: value for key, value in layer.values.items() if key != EXTENDS}
    return [*layers, Layer(own, {path: where for path, where in layer.said.items() if path != EXTENDS}, layer.mistakes)]
