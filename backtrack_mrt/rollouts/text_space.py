"""Texts as a space of Gymnasium, also in vector environments whose workers share their memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar, overload

import gymnasium
import numpy as np
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory
from numpy.typing import NDArray

from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Completion

SHARED = 1 << 18  # bytes of UTF-8 that an observation may have where memory is shared
_HEAD = 4  # bytes before them: how many there are


class TextSpace(gymnasium.Space[Any]):
    """Texts of any length in any script (`gymnasium.spaces.Text` wants both to be bounded). With `completions` also a
    `Completion`: the tokens that a policy sampled."""

    LONGEST_DRAWN: ClassVar[int] = 64

    def __init__(self, completions: bool = False) -> None:
        super().__init__()
        self.completions = completions

    def contains(self, x: object) -> bool:
        return isinstance(x, str) or (self.completions and isinstance(x, Completion))

    def sample(self, mask: None = None, probability: None = None) -> str:
        """Up to 64 printable ASCII characters."""
        length = self.np_random.integers(self.LONGEST_DRAWN + 1)
        return "".join(map(chr, self.np_random.integers(32, 127, size=length)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace) and other.completions == self.completions

    def __repr__(self) -> str:
        return f"TextSpace(completions={self.completions})"


class SharedTexts(Sequence[str]):
    """The observations as they are in the memory now. Gymnasium asks for them once and expects them to change; what it
    hands out are copies, which are tuples."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self.rows = rows

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        row = self.rows[index]
        length = int.from_bytes(row[:_HEAD].tobytes(), "big")
        return str(row[_HEAD : _HEAD + length].tobytes(), "utf-8")

    def __len__(self) -> int:
        return len(self.rows)

    def __deepcopy__(self, memo: object) -> tuple[str, ...]:
        return tuple(self)


@create_shared_memory.register(TextSpace)
def _create(space: TextSpace, n: int = 1, ctx: ModuleType | Any = multiprocessing) -> Any:
    return ctx.Array("B", n * (_HEAD + SHARED))


@read_from_shared_memory.register(TextSpace)
def _read(space: TextSpace, shared_memory: Any, n: int = 1) -> SharedTexts:
    return SharedTexts(_rows(shared_memory))


@write_to_shared_memory.register(TextSpace)
def _write(space: TextSpace, index: int, value: str, shared_memory: Any) -> None:
    text = value.encode("utf-8", "replace")
    if len(text) > SHARED:
        reason = f"an observation of {len(text)} bytes does not fit into the {SHARED} that workers share"
        raise UserError("shared_memory", True, reason, "Pass vector_kwargs={'shared_memory': False}.")
    written = len(text).to_bytes(_HEAD, "big") + text
    _rows(shared_memory)[index, : len(written)] = np.frombuffer(written, dtype=np.uint8)


def _rows(shared_memory: Any) -> NDArray[np.uint8]:
    """The memory of each environment (n, bytes)."""
    return np.frombuffer(shared_memory.get_obj(), dtype=np.uint8).reshape(-1, _HEAD + SHARED)
