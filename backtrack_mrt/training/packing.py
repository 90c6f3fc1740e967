"""The update's forward pass without padding, each prompt read once.

The rows of a micro-batch travel through the model *packed*, as one sequence of T tokens: first every distinct prompt,
once, then what follows it in each row. Only inside the attention are they laid out by row again: a row's queries see
the keys and values of its prompt, which all members of the group share (with gradient), and its own. The linear layers,
most of an update's work, so never see a pad token, nor a prompt twice. The gradients are those of padded rows. A row
may have branches, such as answers forced at the ends of its turns, whose tokens see what comes before them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from backtrack_mrt.policy.hf.arithmetic import any_length, attending, evaluating
from backtrack_mrt.policy.hf.packed_forward import Branches
from backtrack_mrt.policy.hf.runner import unusual_attention
from backtrack_mrt.policy.hf.trial import ordinary_tokens, too_far
from backtrack_mrt.training.row_places import GroupedRows, PackedRow, grouped

ATTENTION = "backtrack_mrt_shared_prompts"  # the name under which transformers knows `attend`
WASTE = 1.25  # rows are attended together while their padded places are at most so many times their tokens
IGNORED = -100  # target of a token that predicts nothing which is asked for


@dataclass(frozen=True, slots=True)
class Block:
    """n rows of at most w tokens, attended together.

    pad (n · w,): where the rows' tokens are among the T packed ones. prompt (n · p,): where those of their prompts are;
    empty for the prompts themselves. mask (n, 1, w · groups, p + w): added to the attention scores.
    """

    rows: int
    pad: Tensor
    prompt: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Packed:
    """B rows as T packed tokens.

    ids, positions, targets (T,): the tokens, their places in their rows, and the token that each predicts (or IGNORED).
    prompts, rows: where they are. groups: query heads for each key head. like: has the device and the dtype of masks.
    scored (B, C): where the packed tokens are that predict the completions' tokens; places beyond a completion's end
    are 0. branched: where the branches of each row begin.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    prompts: tuple[PackedRow, ...]
    rows: tuple[PackedRow, ...]
    groups: int
    like: Tensor
    scored: Tensor
    branched: tuple[int, ...]

    def inputs(self) -> dict[str, Any]:
        """What a model is called with, within `packed_attention`."""
        return {"input_ids": self.ids[None], "position_ids": self.positions[None], "packed": self}

    @cached_property
    def grouped(self) -> GroupedRows:
        """The rows as compiled code reads them."""
        return grouped(self.prompts, self.rows)

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], Tensor]:
        """How the attention lays the tokens out, and the way back: where each of them is in the blocks (T,)."""
        blocks, order = [], list[int]()
        for some in (*alike(self.prompts), *alike(self.rows)):
            block, places = _block(some, self.groups, self.like)
            blocks.append(block)
            order += places
        unpad = torch.empty(len(self.ids), dtype=torch.long)
        at = torch.tensor(order)
        unpad[at[at >= 0]] = (at >= 0).nonzero().flatten()
        return tuple(blocks), unpad.to(self.like.device)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of packed queries (1, heads, T, D) over packed keys and values (1, kv_heads, T, D)."""
    packed: Packed = kwargs["packed"]
    heads, tokens, depth = query.shape[1:]
    kv_heads = key.shape[1]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, heads, D)
    mixed, (blocks, unpad) = [], packed.blocks
    for block in blocks:
        n = block.rows
        queries = q.index_select(0, block.pad).view(n, -1, kv_heads, heads // kv_heads, depth)
        # Query heads that share a key head are stacked along the query axis, so that keys are not repeated for them.
        stacked = queries.transpose(1, 2).reshape(n, kv_heads, -1, depth)
        keys, values = (
            torch.cat([x.index_select(0, at).view(n, -1, kv_heads, depth) for at in (block.prompt, block.pad)], dim=1)
            if len(block.prompt)
            else x.index_select(0, block.pad).view(n, -1, kv_heads, depth)
            for x in (k, v)
        )
        out = scaled_dot_product_attention(
            stacked, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=block.mask, scale=kwargs.get("scaling")
        )
        mixed.append(out.view(n, kv_heads, -1, heads // kv_heads, depth).transpose(1, 2).reshape(-1, heads, depth))
    return torch.cat(mixed).index_select(0, unpad).view(1, tokens, heads, depth), None


AttentionInterface.register(ATTENTION, attend)


def packable(model: Any) -> bool:
    """Whether a model attends as `attend` does, and its loss is that of its tokens alone (a mixture of experts may add
    one of its routers). Tried on a few tokens: architectures differ in more than their configs tell."""
    config = model.config
    if config._attn_implementation != "sdpa" or unusual_attention(config) is not None:
        return False
    if getattr(config, "output_router_logits", False) or not hasattr(config, "num_key_value_heads"):
        return False
    row = ordinary_tokens(model, 8)
    try:
        with torch.no_grad(), evaluating(model), packed_attention(config):
            packed = pack([row[:5]], [row[5:]], model)
            logits = model(**packed.inputs(), use_cache=False).logits[0, packed.scored[0]]
        scores = logits.float().log_softmax(-1)[range(3), row[5:]]
        return too_far(model, row, scores.double().cpu().numpy()) is None
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, IndexError):
        return False


def packed_rows(
    input_ids: Tensor, attention_mask: Tensor, completions: int, model: Any, branches: Sequence[Branches] = ()
) -> Packed:
    """The rows of a batch (B, L): the last `completions` places are the completions', padded on the right, those before
    them the prompts', padded on the left."""
    rows = list(zip(input_ids.cpu(), attention_mask.bool().cpu(), strict=True))
    first = input_ids.size(1) - completions
    prompts = [ids[:first][seen[:first]].tolist() for ids, seen in rows]
    replies = [ids[first:][seen[first:]].tolist() for ids, seen in rows]
    packed = pack(prompts, replies, model, branches)
    return replace(packed, scored=pad(packed.scored, (0, completions - packed.scored.size(1))))


@dataclass(frozen=True, slots=True)
class Aligned:
    """B rows of at most L tokens, each from the first place on: for models whose rows cannot be packed. All of them
    leave what is behind a token unseen, but not all what is before: many number the places from the first one.

    ids, mask, targets (B, L), scored (B, C): as in `Packed`.
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor
    scored: Tensor

    def inputs(self) -> dict[str, Any]:
        """What a model is called with."""
        return {"input_ids": self.ids, "attention_mask": self.mask}


def aligned_rows(input_ids: Tensor, attention_mask: Tensor, completions: int) -> Aligned:
    """The rows of a batch as in `packed_rows`."""
    order = attention_mask.argsort(dim=1, descending=True, stable=True)
    mask = attention_mask.gather(1, order)
    width = int(mask.sum(1).max())
    ids, mask = input_ids.gather(1, order)[:, :width], mask[:, :width]
    prompts = attention_mask[:, :-completions].sum(1, keepdim=True)
    places = torch.arange(width, device=ids.device)
    wanted = (places >= prompts - 1) & (places < mask.sum(1, keepdim=True) - 1)
    scored = (prompts - 1 + torch.arange(completions, device=ids.device)).clamp(max=width - 1)
    return Aligned(ids, mask, ids.roll(-1, 1).masked_fill(~wanted, IGNORED), scored)


def pack(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    model: Any,
    branches: Sequence[Branches] = (),
) -> Packed:
    """Rows of a prompt (at least one token) and a completion each, for `model`. branches: off what follows the prompt
    in each row (none: no row has any).

    A prompt's last token predicts another token in every row, so it is the first one of what follows; the last token of
    a completion predicts nothing and is left out.
    """
    branches = branches or [Branches(len(completion)) for completion in completions]
    trunks = list(dict.fromkeys(tuple(prompt[:-1]) for prompt in prompts if len(prompt) > 1))
    starts, ids, positions = {}, list[int](), list[int]()
    for trunk in trunks:
        starts[trunk] = len(ids)
        ids += trunk
        positions += range(len(trunk))
    targets = [IGNORED] * len(ids)
    scored = torch.zeros(len(prompts), max(map(len, completions)), dtype=torch.long)
    spans, branched = [PackedRow(range(starts[t], starts[t] + len(t))) for t in trunks], list[int]()
    for row, (prompt, completion, leaving) in enumerate(zip(prompts, completions, branches, strict=True)):
        first, trunk = len(ids), tuple(prompt[:-1])
        ids += [prompt[-1], *completion[:-1]]
        positions += range(len(trunk), len(trunk) + len(completion))
        targets += completion
        scored[row, : len(completion)] = torch.arange(first, len(ids))
        branched.append(len(ids))
        ids += leaving.tokens
        positions += [len(trunk) + place for place in leaving.positions]
        targets += [IGNORED] * len(leaving.tokens)
        shared = range(starts[trunk], starts[trunk] + len(trunk)) if trunk else range(0)
        spans.append(PackedRow(range(first, len(ids)), shared, leaving))
    config, weight = model.config, model.get_input_embeddings().weight
    device = weight.device
    return Packed(
        ids=torch.tensor(ids, device=device),
        positions=torch.tensor(positions, device=device),
        targets=torch.tensor(targets, device=device),
        prompts=tuple(spans[: len(trunks)]),
        rows=tuple(spans[len(trunks) :]),
        groups=config.num_attention_heads // config.num_key_value_heads,
        like=torch.empty(0, dtype=weight.dtype, device=device),  # FSDP follows weights that a layer is given
        scored=scored.to(device),
        branched=tuple(branched),
    )


def alike(rows: Sequence[PackedRow]) -> Iterator[list[PackedRow]]:
    """The rows in runs of like length."""
    run, tokens = list[PackedRow](), 0
    for row in sorted(rows, key=lambda row: (len(row.own), len(row.shared))):
        longest, total = len(row.own), tokens + len(row.own)
        if run and longest * (len(run) + 1) > WASTE * total:
            yield run
            run, tokens = [], 0
        run.append(row)
        tokens += len(row.own)
    if run:
        yield run


def _block(rows: Sequence[PackedRow], groups: int, like: Tensor) -> tuple[Block, list[int]]:
    """The layout of these rows, and for each of its places the packed token there (−1: none)."""
    n, w, p = len(rows), max(len(row.own) for row in rows), max(len(row.shared) for row in rows)
    own = torch.tensor([[*row.own, *[-1] * (w - len(row.own))] for row in rows])
    shared = torch.tensor([[*row.shared, *[-1] * (p - len(row.shared))] for row in rows], dtype=torch.long).view(n, p)
    causal = torch.ones(w, w, dtype=torch.bool).tril()
    seen = torch.cat([(shared >= 0)[:, None].expand(n, w, p), causal.expand(n, w, w)], dim=2)
    for sees, row in zip(seen[:, :, p:], rows, strict=True):
        if row.branches.tokens:
            length = row.branches.length
            sees[length : len(row.own), :length] = torch.arange(length) < torch.tensor(row.branches.roots)[:, None]
            sees[length : len(row.own), length : len(row.own)] = torch.from_numpy(row.branches.visible())
    mask = torch.zeros(n, w, p + w, dtype=like.dtype).masked_fill_(~seen, -torch.inf)
    block = Block(
        n,
        own.clamp(min=0).flatten().to(like.device),
        shared.clamp(min=0).flatten().to(like.device),
        mask.repeat_interleave(groups, dim=1)[:, None].to(like.device),
    )
    return block, own.flatten().tolist()


@contextmanager
def packed_attention(config: Any) -> Iterator[None]:
    """Within the context the model attends by `attend`: also in backward passes, which may compute forward again."""
    with attending(config, ATTENTION), any_length():
        yield
