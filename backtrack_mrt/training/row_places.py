"""Where rows are among packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from backtrack_mrt.policy.hf.packed_forward import Branches


class PackedRow(NamedTuple):
    """Where a row is among the packed tokens: its own, branches last, and those of its prompt. Its own tokens are as
    many as `branches.length`, or all if it has none."""

    own: range
    shared: range = range(0)
    branches: Branches = Branches(0)


@dataclass(frozen=True, eq=False, slots=True)
class GroupedRows:
    """Rows by group, as compiled code reads them (policy/hf/c/rows.h).

    first (groups + 1,): the rows of a group lie side by side, its prompt (maybe of no token) before its members.
    own, count: by row, where its tokens begin and how many there are.

    A row's keys are those of its prompt, and then its own. seen (T,): a packed token sees so many of them, from the
    first on, and those that `extra` names from offsets[t] to offsets[t + 1]. longest: most keys of a row.
    """

    first: Tensor
    own: Tensor
    count: Tensor
    seen: Tensor
    offsets: Tensor
    extra: Tensor
    longest: int


def grouped(prompts: Sequence[PackedRow], rows: Sequence[PackedRow]) -> GroupedRows:
    """Rows without a prompt before them are groups of their own."""
    members: dict[range, list[PackedRow]] = {prompt.own: [] for prompt in prompts}
    alone = [row for row in rows if not row.shared]
    for row in rows:
        if row.shared:
            members[row.shared].append(row)
    groups = [[PackedRow(own), *some] for own, some in members.items()] + [[PackedRow(range(0)), row] for row in alone]
    ordered = [row for group in groups for row in group]
    seen, extras, extra = list[int](), list[int](), list[int]()
    for row in (*prompts, *rows):  # as they are packed
        before, branches = len(row.shared), row.branches
        length = len(row.own) - len(branches.tokens)
        seen += range(before + 1, before + length + 1)
        extras += [0] * length
        if branches.tokens:
            seen += [before + root for root in branches.roots]
            visible = branches.visible()
            extras += visible.sum(1).tolist()
            extra += (before + length + visible.nonzero()[1]).tolist()
    first, own, count, seen_T, offsets, extras_E = (
        torch.tensor(numbers, dtype=torch.long)
        for numbers in (
            [0, *accumulate(map(len, groups))],
            [row.own.start for row in ordered],
            [len(row.own) for row in ordered],
            seen,
            [0, *accumulate(extras)],
            extra,
        )
    )
    longest = max(len(row.shared) + len(row.own) for row in ordered)
    return GroupedRows(first, own, count, seen_T, offsets, extras_E, longest)
