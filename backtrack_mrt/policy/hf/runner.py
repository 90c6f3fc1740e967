"""One policy's model with its cached rows: prefill, decoding steps and branches, all as packed forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.engine import EngineStats, Pair
from backtrack_mrt.policy.hf.arithmetic import any_length, as_trained, attending, evaluating
from backtrack_mrt.policy.hf.compiled import CompiledDecoder, code_for
from backtrack_mrt.policy.hf.kernels import in_free_cores
from backtrack_mrt.policy.hf.kv_cache import CacheRow, RowCache
from backtrack_mrt.policy.hf.lora import MergedAdapter, decoder_of
from backtrack_mrt.policy.hf.packed_forward import (
    ATTENTION,
    Branches,
    IntArray,
    Layout,
    Masks,
    layout_branches,
    layout_extensions,
    layout_step,
    packs,
)
from backtrack_mrt.policy.hf.step_graphs import ROWS, StepGraphs
from backtrack_mrt.types import FloatArray, TokenIds

Branch = tuple[int, Pair]  # how many tokens of a row the pair's prefix shares, and the pair


class Runner:
    """Runs `model`, which it shares with the trainer, within `inference()`. `adapter`: its LoRA adapter is to be merged
    meanwhile; None for a reference policy. compiled: in compiled code where there is some for it."""

    def __init__(
        self, model: nn.Module, max_rows: int, stats: EngineStats, adapter: MergedAdapter | None, compiled: bool
    ) -> None:
        self.model, self.stats, self.adapter = model, stats, adapter
        self.decoder = decoder_of(model)
        if kind := unusual_attention(self.decoder.config):
            reason = f"{self.decoder.config.model_type} has {kind} in its attention"
            raise UserError("engine.type", "hf", reason, "Use PlainEngine, or engine.type=vllm.")
        code = code_for(self.decoder) if compiled else None
        self.compiled = CompiledDecoder(self.decoder, code, adapted=adapter is not None) if code else None
        on_gpu = self.embeddings.device.type == "cuda"
        self.cache = RowCache(max_rows, self.compiled.block if self.compiled else 1, padding=ROWS if on_gpu else 1)
        self.graphs = StepGraphs(self._read_step, self.cache) if on_gpu else None

    @property
    def embeddings(self) -> Tensor:
        """The input embeddings: they tell the device and dtype that the model computes in."""
        weight: Tensor = self.decoder.get_input_embeddings().weight
        return weight

    @property
    def masks(self) -> Masks | None:
        """How the passes are masked; compiled code needs no mask."""
        if self.compiled is not None:
            return None
        config = self.decoder.config
        return Masks(config.num_attention_heads // config.num_key_value_heads, self.embeddings)

    @property
    def size(self) -> int:
        """Bytes of buffers and merged weights."""
        return self.cache.size + (self.adapter.size if self.adapter else 0)

    def renew(self) -> None:
        """The weights have changed: forget what was made of them. The memory stays, and the steps captured on it."""
        self.cache.forget()
        if self.adapter is not None:
            self.adapter.renew()
        if self.compiled is not None:
            self.compiled.drop()

    def drop(self) -> None:
        """Forget all that was made of the weights, and free its memory."""
        self.cache.clear()
        if self.graphs is not None:
            self.graphs.drop()
        if self.adapter is not None:
            self.adapter.drop()
        if self.compiled is not None:
            self.compiled.drop()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode, packed attention and merged adapter; everything is as before on exit. Compiled code touches
        nothing of the model."""
        if self.compiled is not None:
            with torch.inference_mode(), in_free_cores(self.compiled.code):
                yield
            return
        merged = self.adapter.swapped_in() if self.adapter else nullcontext()
        packed = attending(self.decoder.config, ATTENTION)
        with merged, torch.inference_mode(), as_trained(self.decoder), any_length(), evaluating(self.model), packed:
            yield

    def prefill(self, prefixes: Sequence[TokenIds], rows: Sequence[CacheRow], ahead: int = 0) -> Tensor:
        """Read what the rows lack of their prefixes, a repeated prefix once; returns the next token's logits (n, V).
        ahead: so many tokens may follow by `step`."""
        cache, like = self.cache, self.embeddings
        leaders = dict(zip(reversed(prefixes), reversed(rows), strict=True))  # the first row of each prefix
        self.arrange(list(leaders.values()))
        # A processor's room takes no memory before it is used; captured steps reserve what they need.
        cache.reserve(max(map(len, prefixes)) + (0 if self.graphs else ahead))
        pending = sorted(leaders.items(), key=lambda item: item[1].index)
        logits: list[Tensor] = []
        for part in packs([len(prefix) - len(row.ids) for prefix, row in pending]):
            cached = [len(pending[i][1].ids) for i in part]
            news = [pending[i][0][start:] for i, start in zip(part, cached, strict=True)]
            widths = [len(new) for new in news]
            places = [pending[i][1].index for i in part]
            layout = layout_extensions(places, cached, widths, self.masks)
            tokens = torch.tensor([token for new in news for token in new], device=like.device)
            last = torch.tensor(widths, device=like.device).cumsum(0) - 1
            logits.append(self.forward(tokens, layout.slots, layout, last))
        for prefix, row in pending:
            row.ids = prefix
        followers = [(leaders[p], row, len(p)) for p, row in zip(prefixes, rows, strict=True) if row is not leaders[p]]
        cache.copy(followers)
        for source, row, _ in followers:
            row.ids = source.ids
        place = {prefix: i for i, (prefix, _) in enumerate(pending)}
        return torch.cat(logits)[[place[prefix] for prefix in prefixes]]

    def arrange(self, rows: Sequence[CacheRow]) -> None:
        """Bring the rows that passes are to work on to the front; compiled code reads them where they are. Opens a run
        of passes: until it ends no row begins anew."""
        if self.compiled is None:
            self.cache.to_front(rows)
        else:
            self._beginnings = self.cache.beginnings()

    def retire(self, finished: Sequence[int], active: int, slots: int) -> list[int]:
        """Of `active` rows those at the places `finished` are done. Returns the place that each of the others had, in
        their new order: finished rows are moved behind them, or left where they are by compiled code."""
        left, done = active - len(finished), set(finished)
        if self.compiled is not None:
            return [i for i in range(active) if i not in done]
        holes = [i for i in finished if i < left]
        movers = [i for i in range(left, active) if i not in done]
        self.cache.exchange(holes, movers, slots)
        source = dict(zip(holes, movers, strict=True))
        return [source.get(i, i) for i in range(left)]

    def step(self, tokens: Tensor, owner: Tensor, positions: Tensor, length: int) -> Tensor:
        """Read one token (n,) in each of the rows `owner` (n,), at positions (n,) below `length`; returns logits
        (n, V)."""
        self.stats.computed += len(tokens)
        step = self.graphs or self._read_step
        return step(tokens, owner, positions, length)

    def _read_step(self, tokens: Tensor, owner: Tensor, positions: Tensor, length: int) -> Tensor:
        return self._read(tokens, positions, layout_step(owner, positions, length, self.masks))

    def score(
        self, branches: Mapping[CacheRow, Sequence[Branch]], endings: Mapping[Pair, TokenIds]
    ) -> dict[Pair, FloatArray]:
        """Logprobs of the continuations of what branches off cached rows, the last one with `endings` (see
        `Engine.score`); the rows stay as they are."""
        like, scores = self.embeddings, dict[Pair, FloatArray]()
        self.arrange(list(branches))
        tries: list[Branches] = []
        wanted: list[list[tuple[Pair, IntArray]]] = []  # per row, the pairs and the nodes that predict their tokens
        order = sorted(branches, key=lambda row: row.index)
        for row in order:
            tries.append(Branches(len(row.ids)))
            wanted.append([])
            for root, (prefix, continuation) in branches[row]:
                path = tries[-1].add(root, prefix[root:] + continuation[:-1])
                wanted[-1].append(((prefix, continuation), np.array(path[len(prefix) - 1 - root :])))
        self.cache.reserve(max((trie.length + len(trie.tokens) for trie in tries), default=0))
        for part in packs([len(trie.tokens) for trie in tries]):
            some = tries[part.start : part.stop]
            layout = layout_branches([order[i].index for i in part], some, self.masks)
            tokens = torch.tensor([t for trie in some for t in trie.tokens], device=like.device)
            positions = torch.tensor([p for trie in some for p in trie.positions], device=like.device)
            offsets = np.cumsum([0, *(len(trie.tokens) for trie in some)])
            spans = [
                (pair, offset + nodes) for i, offset in zip(part, offsets, strict=False) for pair, nodes in wanted[i]
            ]
            kept, which = np.unique(np.concatenate([nodes for _, nodes in spans]), return_inverse=True)
            targets = torch.tensor([t for (_, continuation), _ in spans for t in continuation], device=like.device)
            at = torch.from_numpy(which).to(like.device)
            logits = self.forward(tokens, positions, layout, torch.from_numpy(kept).to(like.device)).float()
            cuts = np.cumsum([len(nodes) for _, nodes in spans])
            chosen = logits[at, targets]
            for alike, last in _by_ending([pair for pair, _ in spans], cuts - 1, endings).items():
                rows = at[torch.tensor(last, device=like.device)]
                chosen[last] = logits[rows][:, list(alike)].logsumexp(-1)
            values = (chosen - logits.logsumexp(-1)[at]).double().cpu().numpy()
            scores.update(zip([pair for pair, _ in spans], np.split(values, cuts[:-1]), strict=True))
        return scores

    def forward(self, tokens: Tensor, positions: Tensor, layout: Layout, keep: Tensor) -> Tensor:
        """Logits (K, V) at the places `keep` (K,) of T packed tokens."""
        self.stats.computed += len(tokens)
        return self._read(tokens, positions, layout, keep)

    def _read(self, tokens: Tensor, positions: Tensor, layout: Layout, keep: Tensor | None = None) -> Tensor:
        """As `forward`, uncounted; at all of them by default."""
        if self.compiled is not None:
            return self.compiled.forward(tokens, positions, layout, self.cache, self._beginnings, keep)
        self.cache.layout = layout
        output = self.decoder(
            input_ids=tokens[None],
            position_ids=positions[None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=0 if keep is None else keep,
            layout=layout.grid,
        )
        logits: Tensor = output.logits[0]
        return logits


def _by_ending(
    pairs: Sequence[Pair], last: Iterable[int], endings: Mapping[Pair, TokenIds]
) -> dict[TokenIds, list[int]]:
    """Where the `last` tokens of the pairs stand, by the endings that they stand for."""
    places: dict[TokenIds, list[int]] = {}
    for pair, place in zip(pairs, last, strict=True):
        if alike := endings.get(pair):
            places.setdefault(alike, []).append(int(place))
    return places


def unusual_attention(config: Any) -> str | None:
    """What a model's attention does beside full causal softmax attention; None if nothing."""
    other = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if other or getattr(config, "sliding_window", None) or getattr(config, "attn_logit_softcapping", None):
        return ", ".join(sorted(other)) or "a sliding window or soft-capped logits"
    return None
