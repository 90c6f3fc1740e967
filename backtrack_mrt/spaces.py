"""The Gymnasium space of texts of any length in any script (`gymnasium.spaces.Text` wants both to be bounded)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium

from backtrack_mrt.types import Completion


class TextSpace(gymnasium.Space[Any]):
    """Any string. With `completions` also a `Completion`: the tokens that a policy sampled."""

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
