"""Which split a generated problem belongs to: drawn by its digest, so it is the same everywhere and always."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def drawn_split(problem: str, shares: Mapping[str, float]) -> str:
    """One of the splits, each as likely as its share; they sum to 1, and the last takes what rounding leaves."""
    place = int.from_bytes(hashlib.sha256(problem.encode()).digest()[:8], "big") / 2**64
    for split, share in shares.items():
        place -= share
        if place < 0:
            return split
    return split
