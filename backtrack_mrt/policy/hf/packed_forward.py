"""Forward passes without padding.

The new tokens of all rows travel through the model *packed*, as one sequence of T tokens; only inside the attention are
they laid out by row, over that row's cached keys. One pass may so prefill, decode or score branches of many ragged
rows, and the linear layers never see a pad token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
class Layout:
    """Where T packed tokens belong: n buffer rows from `first` on, at most w new tokens and L slots in each.

    owner (T,): buffer row of each token. slots (T,): where its key is stored. length: L.
    mask (n, 1, w · groups, L): added to the attention scores, (n, 1, 1, L) if w = 1.
    pad (n, w): position of a row's tokens among the T, 0 beyond its own; None if w = 1. unpad (T,): the way back.
    """

    first: int
    owner: Tensor
    slots: Tensor
    length: int
    mask: Tensor
    pad: Tensor | None = None
    unpad: Tensor | None = None


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of packed queries (1, heads, T, D) over the rows' keys and values (n, kv_heads, L, D).

    Query heads that share a key head are stacked along the query axis. The stock attention repeats the keys for them
    instead as soon as there is a mask, which copies the whole cache in every layer of every step.
    """
    layout: Layout = kwargs["layout"]
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


def layout_extensions(first: int, lengths: Sequence[int], widths: Sequence[int], groups: int, like: Tensor) -> Layout:
    """Rows from `first` on, with `lengths` tokens cached, each continued by `widths` new ones. `like` names the dtype
    and device of the mask."""
    starts, counts = np.asarray(lengths), np.asarray(widths)
    pad, unpad, owner, within = _grid(counts)
    reach = torch.from_numpy(np.minimum(starts[:, None] + np.arange(counts.max()), (starts + counts - 1)[:, None]))
    length = int((starts + counts).max())
    hidden = torch.arange(length) > reach[:, :, None]  # pad queries repeat the row's last one
    mask = torch.zeros(hidden.shape, dtype=like.dtype).masked_fill_(hidden, -torch.inf)
    return _layout(first, owner, np.repeat(starts, counts) + within, length, mask, pad, unpad, groups, like)


def layout_branches(first: int, rows: Sequence[Branches], groups: int, like: Tensor) -> Layout:
    """Rows from `first` on, each with its branches. A node is stored behind the row's cached tokens, in scratch slots,
    and sees the cached tokens before its branch and its own ancestors."""
    starts, counts = np.array([row.length for row in rows]), np.array([len(row.tokens) for row in rows])
    pad, unpad, owner, within = _grid(counts)
    length = int((starts + counts).max())
    mask = np.full((len(rows), int(counts.max()), length), -np.inf, dtype=np.float32)
    slots = np.arange(length)
    for i, row in enumerate(rows):
        seen = slots < np.array(row.roots)[:, None]
        seen[:, row.length : row.length + len(row.tokens)] = row.visible()
        mask[i, : len(row.tokens)][seen] = 0.0
        mask[i, len(row.tokens) :] = 0.0  # pad queries: any finite result will do
    mask_t = torch.from_numpy(mask).to(like.dtype)
    return _layout(first, owner, np.repeat(starts, counts) + within, length, mask_t, pad, unpad, groups, like)


def _grid(counts: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """The maps between T packed tokens and an (n, w) grid: pad (n, w), unpad (T,), then each token's row and its place
    within the row."""
    width = int(counts.max())
    owner = np.repeat(np.arange(len(counts)), counts)
    offsets = np.cumsum(counts) - counts
    within = np.arange(len(owner)) - offsets[owner]
    columns = np.arange(width)
    pad = np.where(columns < counts[:, None], offsets[:, None] + columns, 0)
    return pad, owner * width + within, owner, within


def _layout(
    first: int,
    owner: IntArray,
    slots: IntArray,
    length: int,
    mask: Tensor,
    pad: IntArray,
    unpad: IntArray,
    groups: int,
    like: Tensor,
) -> Layout:
    def on_device(values: IntArray) -> Tensor:
        return torch.from_numpy(values).to(like.device)

    wide = pad.shape[1] > 1
    mask = mask.repeat_interleave(groups, dim=1) if wide else mask
    return Layout(
        first,
        on_device(owner + first),
        on_device(slots),
        length,
        mask[:, None].to(like.device),
        on_device(pad) if wide else None,
        on_device(unpad) if wide else None,
    )
