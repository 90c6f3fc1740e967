"""Forward passes without padding.

The new tokens of all rows travel through the model *packed*, as one sequence of T tokens; only inside the attention are
they laid out by row, over that row's cached keys. One pass may so prefill, decode or score branches of many ragged
rows, and the linear layers never see a pad token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from backtrack_mrt.types import TokenIds

IntArray = NDArray[np.int64]

ATTENTION = "backtrack_mrt_packed"  # the name under which transformers knows `attend`
PACK = 2048  # tokens of one forward pass: enough to keep the cores busy, few enough for small activations


@dataclass(frozen=True, slots=True)
class RowGrid:
    """Packed tokens by row: n neighbouring buffer rows from `first` on, at most w new tokens and L = `length` slots in
    each.

    mask (n, 1, w · groups, L): added to the attention scores, (n, 1, 1, L) if w = 1.
    pad (n, w): position of a row's tokens among the T, 0 beyond its own; None if w = 1. unpad (T,): the way back.
    """

    first: int
    length: int
    mask: Tensor
    pad: Tensor | None = None
    unpad: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where T packed tokens belong and what they see.

    owner (T,): buffer row of each token. slots (T,): where its key is stored. seen (T,): it sees so many slots of its
    row, from the first on, and of the E slots `extra` those from offsets[t] to offsets[t + 1] (T + 1,). grid: the same
    for the model's own attention; compiled code needs none.
    """

    owner: Tensor
    slots: Tensor
    seen: Tensor
    offsets: Tensor
    extra: Tensor
    grid: RowGrid | None


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of packed queries (1, heads, T, D) over the rows' keys and values (n, kv_heads, L, D).

    Query heads that share a key head are stacked along the query axis. The stock attention repeats the keys for them
    instead as soon as there is a mask, which copies the whole cache in every layer of every step.
    """
    layout: RowGrid = kwargs["layout"]
    packed = query[0].transpose(0, 1)  # (T, heads, D)
    tokens, heads, depth = packed.shape
    rows, kv_heads = key.shape[:2]
    width = 1 if layout.pad is None else layout.pad.shape[1]
    by_row = packed if layout.pad is None else packed[layout.pad.flatten()]
    stacked = by_row.reshape(rows, width, kv_heads, -1, depth).transpose(1, 2).reshape(rows, kv_heads, -1, depth)
    mixed = scaled_dot_product_attention(stacked, key, value, attn_mask=layout.mask, scale=kwargs.get("scaling"))
    mixed = mixed.reshape(rows, kv_heads, width, -1, depth).transpose(1, 2).reshape(-1, heads, depth)
    if layout.unpad is not None:
        mixed = mixed[layout.unpad]
    return mixed.view(1, tokens, heads, depth), None


AttentionInterface.register(ATTENTION, attend)


@dataclass(slots=True)
class Branches:
    """New tokens on top of a row that has `length` tokens cached: a trie, so that what branches share is computed once.

    Per node: its token, its position, the number of cached tokens it sees (where its branch leaves the row) and its
    parent node, -1 at the start of a branch. Nodes come after their parents.
    """

    length: int
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, root: int, tokens: TokenIds) -> list[int]:
        """Append a branch that leaves the row after `root` tokens; returns its nodes, one per token."""
        path: list[int] = []
        parent = -1
        for position, token in zip(count(root), tokens):
            key = (parent if path else -1 - root, token)
            node = self._children.get(key)
            if node is None:
                node = self._children[key] = len(self.tokens)
                self.tokens.append(token)
                self.positions.append(position)
                self.roots.append(root)
                self.parents.append(parent)
            path.append(node)
            parent = node
        return path

    def visible(self) -> NDArray[np.bool_]:
        """Which nodes each node sees: its ancestors and itself, shape (w, w)."""
        seen = np.eye(len(self.tokens), dtype=np.bool_)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def packs(widths: Sequence[int]) -> Iterator[range]:
    """Cut rows with these numbers of new tokens into runs of at most PACK tokens. A run also ends where the rows'
    lengths differ too much: inside the attention every row is as wide as the widest."""
    start, tokens, widest = 0, 0, 0
    for i, width in enumerate(widths):
        tokens, widest = tokens + width, max(widest, width)
        if i > start and (tokens > PACK or widest * (i + 1 - start) > 2 * tokens):
            yield range(start, i)
            start, tokens, widest = i, width, width
    if start < len(widths):
        yield range(start, len(widths))


@dataclass(frozen=True, slots=True)
class Masks:
    """How masks are made: `groups` query heads to a key head; dtype and device are those of `like`."""

    groups: int
    like: Tensor


def layout_step(owner: Tensor, positions: Tensor, length: int, masks: Masks | None) -> Layout:
    """One token in each of the rows `owner` (n,), at positions (n,) below `length`."""
    seen, none = positions + 1, torch.zeros(len(owner) + 1, dtype=torch.int64, device=owner.device)
    if masks is None:
        return Layout(owner, positions, seen, none, none[:0], None)
    hidden = torch.arange(length, device=owner.device) >= seen[:, None]
    mask = torch.zeros(hidden.shape, dtype=masks.like.dtype, device=owner.device).masked_fill_(hidden, -torch.inf)
    return Layout(owner, positions, seen, none, none[:0], RowGrid(0, length, mask[:, None, None]))


def layout_extensions(
    rows: Sequence[int], lengths: Sequence[int], widths: Sequence[int], masks: Masks | None
) -> Layout:
    """Rows with `lengths` tokens cached, each continued by `widths` new ones."""
    starts, counts = np.asarray(lengths), np.asarray(widths)
    places = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)])
    return _layout(rows, counts, places, places + 1, np.zeros_like(places), places[:0], masks)


def layout_branches(rows: Sequence[int], branches: Sequence[Branches], masks: Masks | None) -> Layout:
    """Rows with their branches. A node is stored behind the row's cached tokens, in scratch slots, and sees the cached
    tokens before its branch and its own ancestors."""
    places = [row.length + np.arange(len(row.tokens)) for row in branches]
    visible = [row.visible() for row in branches]
    extra = np.concatenate([row.length + each.nonzero()[1] for row, each in zip(branches, visible, strict=True)])
    extras = np.concatenate([each.sum(1) for each in visible])
    seen = np.concatenate([row.roots for row in branches])
    counts = np.array([len(row.tokens) for row in branches])
    return _layout(rows, counts, np.concatenate(places), seen, extras, extra, masks)


def _layout(
    rows: Sequence[int],
    counts: IntArray,
    slots: IntArray,
    seen: IntArray,
    extras: IntArray,
    extra: IntArray,
    masks: Masks | None,
) -> Layout:
    device = masks.like.device if masks else None

    def on_device(values: IntArray) -> Tensor:
        return torch.from_numpy(values).to(device)

    owner, offsets = np.repeat(np.asarray(rows), counts), np.concatenate([[0], extras.cumsum()])
    layout = Layout(on_device(owner), on_device(slots), on_device(seen), on_device(offsets), on_device(extra), None)
    if masks is None:
        return layout
    row = np.repeat(np.arange(len(counts)), counts)
    width, length = int(counts.max()), int(slots.max()) + 1
    starts = np.cumsum(counts) - counts
    columns = np.arange(width)
    pad = np.where(columns < counts[:, None], starts[:, None] + columns, 0)
    within = np.arange(len(row)) - starts[row]
    visible = np.zeros((len(counts), width, length), dtype=np.bool_)
    visible[row, within] = np.arange(length) < seen[:, None]
    token = np.repeat(np.arange(len(row)), extras)
    visible[row[token], within[token], extra] = True
    visible[columns >= counts[:, None]] = True  # pad queries: any finite result will do
    mask = torch.zeros(visible.shape, dtype=masks.like.dtype).masked_fill_(torch.from_numpy(~visible), -torch.inf)
    mask = mask.repeat_interleave(masks.groups, dim=1) if width > 1 else mask
    grid = RowGrid(rows[0], length, mask[:, None].to(device))
    if width > 1:
        grid = replace(grid, pad=on_device(pad), unpad=on_device(row * width + within))
    return replace(layout, grid=grid)
