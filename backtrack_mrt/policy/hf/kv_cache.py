"""The rows' histories: token ids, and the keys and values that belong to them.

Each row owns a strip of slots; slot p holds position p. Slots behind the cached tokens are scratch: branches are scored
there, and undoing that is simply not counting them.
"""

from __future__ import annotations

import math
import mmap
import sys
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from backtrack_mrt.policy.engine import KEPT_BY_CPU
from backtrack_mrt.policy.hf.packed_forward import Layout
from backtrack_mrt.types import TokenIds

GRAIN = 64  # slots are allocated in multiples of this
LAZY_GRAIN = 512  # where slots that are not used yet take no memory
# Also more than the machine has: MAP_NORESERVE, which Python names from 3.13 on.
_LAZILY = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x4000 if sys.platform == "linux" else 0)
NEAR = 16  # tokens read again rather than copying another row


def multiple(count: int, of: int) -> int:
    """`count`, rounded up to a multiple."""
    return -(-count // of) * of


@dataclass(eq=False, slots=True)
class CacheRow:
    """A cached history: `ids` are the tokens whose keys are held, `index` is the row's place in the buffers (it may
    move), `used` the call that used it last. `branch`: it began inside another row, as forced answers do; such rows
    make room for one another and never push out a trajectory."""

    index: int
    ids: TokenIds = ()
    used: int = 0
    branch: bool = False


class RowIndex:
    """Finds the cached row that shares the longest beginning with given ids, by bisection."""

    def __init__(self, rows: Iterable[CacheRow]) -> None:
        self._rows: dict[TokenIds, list[CacheRow]] = {}
        for row in rows:
            self._rows.setdefault(row.ids, []).append(row)
        self._sorted = sorted(self._rows)

    def add(self, row: CacheRow) -> None:
        if row.ids not in self._rows:
            insort(self._sorted, row.ids)
        self._rows.setdefault(row.ids, []).append(row)

    def holders(self, ids: TokenIds) -> list[CacheRow]:
        """The rows that hold exactly these ids."""
        return self._rows.get(ids, [])

    def find(self, prefix: TokenIds) -> tuple[int, list[CacheRow]]:
        """How much of `prefix` is cached, short of its last token (whose logits are wanted), and the rows, all with the
        same ids, that hold it. In sorted order the best match is a neighbour."""
        at = bisect_left(self._sorted, prefix)
        best, holders = 0, list[CacheRow]()
        for ids in self._sorted[max(at - 1, 0) : at + 1]:
            common = min(common_prefix(prefix, ids), len(prefix) - 1)
            if common > best or not holders:
                best, holders = common, self._rows[ids]
        return best, holders


def common_prefix(a: TokenIds, b: TokenIds) -> int:
    """Length of the longest common beginning (bisection over slice comparisons, which run in C)."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class RowCache(Cache):  # type: ignore[misc]
    """Keys and values of many rows: one buffer (2, rows, kv_heads, slots, head_dim) per layer, or, where compiled code
    keeps blocks of slots, (2, rows, 1, slots / block, block · kv_heads · head_dim).

    The rows that a pass works on are kept in front, so that their keys are a view and never copied; a row that has
    finished is moved behind them and costs nothing but memory. Kept are as many rows as the first call had requests,
    at least `max_rows`, and as many branches; the ones used longest ago make room. With `padding` the buffers have
    places for a multiple of so many rows, and one more. `generation` counts the buffers that there were.
    """

    def __init__(self, max_rows: int, block: int = 1, padding: int = 1) -> None:
        super().__init__(layers=[])
        self.max_rows, self.block, self.padding, self.generation = max_rows, block, padding, 0
        self.clear()

    def clear(self) -> None:
        """Forget all rows and free their memory."""
        self.generation += 1
        self.buffers: list[Tensor] = []
        self._slots = 0
        self.forget()

    def forget(self) -> None:
        """Forget all rows; the buffers stay."""
        self.rows: list[CacheRow] = []
        self.layout: Layout | None = None  # of the pass that is running
        self._limit = 0
        self._clock = 0
        self._claimed: set[CacheRow] = set()

    @property
    def size(self) -> int:
        """Bytes that the buffers take."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens (1, kv_heads, T, D) and return the keys and values of the pass's rows (n, kv_heads, L, D).
        Called by the model's attention layers."""
        layout = self.layout
        assert layout is not None
        assert layout.grid is not None
        self.open(layer_idx + 1, key_states.shape[1], key_states.shape[3], like=key_states)
        keys, values = self.buffers[layer_idx]
        keys[layout.owner, :, layout.slots] = key_states[0].transpose(0, 1)
        values[layout.owner, :, layout.slots] = value_states[0].transpose(0, 1)
        rows = slice(layout.grid.first, layout.grid.first + len(layout.grid.mask))
        return keys[rows, :, : layout.grid.length], values[rows, :, : layout.grid.length]

    def open(self, layers: int, kv_heads: int, depth: int, *, like: Tensor) -> None:
        """Make the buffers of the first `layers` layers, where they are not there yet."""
        heads, inside = (kv_heads, depth) if self.block == 1 else (1, self.block * kv_heads * depth)
        while len(self.buffers) < layers:
            shape = (2, self._places, heads, self._slots // self.block, inside)
            self.buffers.append(self._blank(shape, like, layers))
            self.generation += 1

    @property
    def spare(self) -> int:
        """A place that no row has: where to write what nobody reads."""
        return self._places - 1

    @property
    def _places(self) -> int:
        """Of rows in the buffers."""
        return len(self.rows) if self.padding == 1 else multiple(len(self.rows), self.padding) + 1

    def reserve(self, slots: int) -> None:
        """Make room for all rows, with `slots` tokens each. What the rows' `ids` tell of stays; with `padding`, for
        captured steps, all does, so that a row may grow while it is decoded."""
        if slots > self._slots:
            lazy = self.block > 1 and self.size * slots // max(self._slots, 1) >= KEPT_BY_CPU
            self._slots = multiple(max(slots, self._slots * 3 // 2), LAZY_GRAIN if lazy else GRAIN)
        blocks = self._slots // self.block
        for i, old in enumerate(self.buffers):  # one layer at a time, so that the peak is a single layer's copy
            if old.shape[1] < self._places or old.shape[3] < blocks:
                places = max(self._places, old.shape[1])  # there may have been more rows before `forget`
                new = self._blank((2, places, old.shape[2], blocks, old.shape[4]), old, len(self.buffers))
                self._take_over(old, new)
                self.buffers[i] = new
                self.generation += 1

    def _blank(self, shape: tuple[int, ...], like: Tensor, layers: int) -> Tensor:
        """A buffer of zeros (a masked NaN would still poison its row), one of `layers`. A processor's memory is claimed
        as it is used, so slots that no row has come to cost nothing. But half of a compiled step is waiting for the
        cache, and much of that for where its pages are: a small one has huge ones."""
        if like.device.type != "cpu":
            return like.new_zeros(shape)
        place = mmap.mmap(-1, size := math.prod(shape) * like.element_size(), _LAZILY)
        if self.block > 1 and layers * size < KEPT_BY_CPU and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # of a kernel that has none
                place.madvise(mmap.MADV_HUGEPAGE)
        return torch.frombuffer(place, dtype=like.dtype).view(shape)

    def _take_over(self, old: Tensor, new: Tensor) -> None:
        if self.padding > 1:
            new[:, : old.shape[1], :, : old.shape[3]] = old
            return
        for row in self.rows:  # on a processor all that is written to takes memory
            if held := multiple(len(row.ids), self.block) // self.block:
                new[:, row.index, :, :held] = old[:, row.index, :, :held]

    def claim(self, prefixes: Sequence[TokenIds]) -> list[CacheRow | None]:
        """For each prefix the row that it continues, if there is one; every row goes to one prefix. Opens a call: the
        claimed rows are safe until the next one."""
        self._clock += 1
        self._limit = self._limit or max(self.max_rows, len(prefixes))
        index = RowIndex(self.rows)
        claims: list[CacheRow | None] = []
        for prefix in prefixes:
            common, _ = index.find(prefix)
            # A row that lacks a few tokens of the best match is still the better choice: no copy, no second row.
            lengths = range(common, max(common - NEAR, 0), -1)
            own = (row for length in lengths for row in index.holders(prefix[:length]))
            row = next((row for row in own if row.used < self._clock), None)
            if row is not None:
                row.used = self._clock
            claims.append(row)
        self._claimed = {row for row in claims if row is not None}
        return claims

    def place(self, prefixes: Sequence[TokenIds], claims: Sequence[CacheRow | None]) -> list[CacheRow]:
        """A row of its own for every prefix: the claimed one, or one that begins with a copy of the best match.
        `row.ids` is what it holds of the prefix; nothing for the repetitions of a prefix."""
        index = RowIndex(self.rows)
        taken = set(self._claimed)
        copies: list[tuple[CacheRow, CacheRow, int]] = []
        begun: list[tuple[CacheRow, TokenIds]] = []
        placed: list[CacheRow] = []
        seen: set[TokenIds] = set()
        for prefix, claim in zip(prefixes, claims, strict=True):
            row = claim
            if row is None:
                common, holders = index.find(prefix)
                row = self._vacate(branch=2 * common > len(prefix), taken=taken)
                common = 0 if prefix in seen else common
                if common:
                    copies.append((holders[0], row, common))
                begun.append((row, prefix[:common]))
            seen.add(prefix)
            taken.add(row)
            placed.append(row)
        self.reserve(self._slots)
        self.copy(copies)
        for row, ids in begun:
            row.ids = ids
        return placed

    def beginnings(self) -> tuple[Tensor, Tensor]:
        """For every row, a row that begins as it does, and how many tokens they share (0: itself). The members of a
        group name one row among them, so their prompt can be read from one place."""
        leads, shared = torch.arange(len(self.rows)), torch.zeros(len(self.rows), dtype=torch.int64)
        leader = CacheRow(-1)
        for row in sorted(self.rows, key=lambda row: row.ids):
            common = common_prefix(leader.ids, row.ids)
            if common < NEAR:
                leader = row
            else:
                leads[row.index], shared[row.index] = leader.index, common
        return leads, shared

    def copy(self, copies: Sequence[tuple[CacheRow, CacheRow, int]]) -> None:
        """Copy the first tokens' keys and values, for each (source, target, tokens). All are read before any is
        written."""
        blocks = [-(-tokens // self.block) for _, _, tokens in copies]
        for buffer in self.buffers:
            held = [buffer[:, source.index, :, :n].clone() for (source, _, _), n in zip(copies, blocks, strict=True)]
            for keys, (_, target, _), n in zip(held, copies, blocks, strict=True):
                buffer[:, target.index, :, :n] = keys

    def to_front(self, rows: Sequence[CacheRow]) -> None:
        """Exchange rows so that these occupy the places 0 … len(rows) − 1, in any order."""
        count = len(rows)
        wanted = {row.index for row in rows}
        outside = sorted(i for i in wanted if i >= count)
        self.exchange([i for i in range(count) if i not in wanted][: len(outside)], outside)

    def exchange(self, a: Sequence[int], b: Sequence[int], slots: int | None = None) -> None:
        """Exchange the rows at places `a` with those at `b`, of which the first `slots` slots matter. Compiled code
        reads rows where they are."""
        for i, j in zip(a, b, strict=True):
            one, other = self.rows[i], self.rows[j]
            length = max(len(one.ids), len(other.ids)) if slots is None else slots
            for buffer in self.buffers:
                held = buffer[:, i, :, :length].clone()
                buffer[:, i, :, :length] = buffer[:, j, :, :length]
                buffer[:, j, :, :length] = held
            self.rows[i], self.rows[j] = other, one
            one.index, other.index = j, i

    def _vacate(self, branch: bool, taken: set[CacheRow]) -> CacheRow:
        """A row to write to: a new one while there is room, else the one whose last use is longest ago."""
        same = [row for row in self.rows if row.branch == branch]
        free = [row for row in same if row not in taken]
        if free and len(same) >= (self.max_rows if branch else self._limit):
            row = min(free, key=lambda r: r.used)
        else:
            row = CacheRow(len(self.rows), branch=branch)
            self.rows.append(row)
        row.used = self._clock
        return row
