"""The Hugging Face engine: samples from the very module that is being trained, with a cache that outlives the calls.

A rollout calls `generate` once per turn, each time with the history and a new instruction; only the instruction goes
through the model. `score` branches off the same cached rows: one forward pass per trajectory, whatever the number of
prefixes. Group members share the prefill of their prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from backtrack_mrt.engines.base import EngineStats
from backtrack_mrt.engines.kv_cache import Row, RowCache, RowIndex
from backtrack_mrt.engines.lora import MergedAdapter
from backtrack_mrt.engines.packed import ATTENTION, Branches, Layout, layout_branches, layout_extensions, packs
from backtrack_mrt.engines.sampling import draw, uniforms
from backtrack_mrt.types import Completion, Finish, FloatArray, Request, Sampling, TokenIds

LONG_BRANCH = 256  # a longer piece of uncached history gets a row of its own before branches leave it


class HFEngine:
    """`model` is a causal language model or a PeftModel around one, shared with the trainer and never modified.

    max_rows: rows decoded at once; larger calls are cut. reference_model: the frozen reference of full fine-tuning;
    with an adapter the reference is the model without it.
    """

    def __init__(
        self, model: nn.Module, *, max_rows: int, pad_id: int | None = None, reference_model: nn.Module | None = None
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {max_rows}")
        self.stats = EngineStats()
        self.max_rows = max_rows
        self._policy, self._reference_model = model, reference_model
        self._model = model  # the one that answers: the policy, or the reference within its context
        self._adapter = MergedAdapter(model)
        self._caches = {"policy": RowCache(max_rows), "reference": RowCache(max_rows)}
        self._answering = "policy"
        config = _decoder(model).config
        self.context_length: int = config.max_position_embeddings
        self._groups: int = config.num_attention_heads // config.num_key_value_heads
        self._like = torch.empty(0)  # dtype and device of the running call's activations

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        for i, request in enumerate(requests):
            self._check_length(f"request {i}", len(request.prefix_ids), 1)
            if request.max_new_tokens < 1:
                raise ValueError(f"request {i} asks for {request.max_new_tokens} tokens, not for at least 1")
        completions: list[Completion] = []
        with self._inference():
            claims = self._cache.claim([request.prefix_ids for request in requests])
            for start in range(0, len(requests), self.max_rows):
                part = slice(start, start + self.max_rows)
                rows = self._cache.place([r.prefix_ids for r in requests[part]], claims[part])
                completions += self._complete(requests[part], rows, sampling)
        return completions

    def score(self, prefixes: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """See `Engine.score`."""
        pairs = list(zip(prefixes, continuations, strict=True))
        for i, (prefix, continuation) in enumerate(pairs):
            self._check_length(f"pair {i}", len(prefix), len(continuation))
        scores: dict[tuple[TokenIds, TokenIds], FloatArray] = {p: np.zeros(0) for p in pairs if not p[1]}
        with self._inference():
            cached, missing = self._assign(sorted(set(pairs) - set(scores), key=lambda p: -len(p[0])))
            self._score_rows(cached, scores)
            for start in range(0, len(missing), self.max_rows):
                trunks = dict(list(missing.items())[start : start + self.max_rows])
                rows = self._cache.place(list(trunks), self._cache.claim(list(trunks)))
                self._prefill(list(trunks), rows)
                self._score_rows(dict(zip(rows, trunks.values(), strict=True)), scores)
        self.stats.scored += sum(map(len, continuations))
        return [scores[pair].copy() for pair in pairs]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """See `Engine.reference`."""
        if self._answering == "reference":
            yield
            return
        with ExitStack() as stack:
            if self._reference_model is not None:
                self._model = self._reference_model
            elif isinstance(self._policy, PeftModel):
                stack.enter_context(self._policy.disable_adapter())
            else:
                raise ValueError(
                    "no reference policy: pass reference_model, or train an adapter instead of all weights"
                )
            self._answering = "reference"
            try:
                yield
            finally:
                self._model, self._answering = self._policy, "policy"

    def sync(self, version: int) -> None:
        """See `Engine.sync`."""
        self._caches["policy"].clear()
        self._adapter.drop()

    def release(self) -> None:
        """See `Engine.release`. The merged adapter is dropped, too."""
        for cache in self._caches.values():
            cache.clear()
        self._adapter.drop()

    # Generation --------------------------------------------------------------------------------------------------

    def _complete(self, requests: Sequence[Request], rows: list[Row], sampling: Sampling) -> list[Completion]:
        """Prefill and decode requests that fit into one batch."""
        cache, device = self._cache, self._like.device
        prefixes = [request.prefix_ids for request in requests]
        logits = self._prefill(prefixes, rows)
        cache.to_front(rows)
        caps = [min(r.max_new_tokens, self.context_length - len(r.prefix_ids)) for r in requests]
        drawn = torch.zeros(len(rows), max(caps), dtype=torch.int64, device=device)
        logprobs = torch.zeros(len(rows), max(caps), dtype=torch.float32, device=device)
        noise = uniforms([request.seed for request in requests], max(caps), device)
        is_stop = torch.zeros(logits.shape[-1], dtype=torch.bool, device=device)
        is_stop[list(sampling.stop_ids)] = True
        # Below, position i of every list and tensor is the i-th active row of the buffers; `order` names its request.
        order = sorted(range(len(rows)), key=lambda i: rows[i].index)
        lengths = torch.tensor([len(prefixes[i]) for i in order], device=device)
        limits = torch.tensor([caps[i] for i in order], device=device)
        chosen = torch.tensor(order, device=device)
        logits = logits[chosen]
        step = 0
        while order:
            tokens, token_logprobs = draw(logits, noise[chosen, step], sampling)
            drawn[chosen, step], logprobs[chosen, step] = tokens, token_logprobs
            step += 1
            finished = (is_stop[tokens] | (limits <= step)).nonzero().flatten().tolist()  # the step's only sync
            if finished:
                longest = step + max(len(prefixes[i]) for i in order)
                staying = self._retire(finished, len(order), longest)
                for i in finished:
                    caps[order[i]] = step
                order = [order[i] for i in staying]
                keep = torch.tensor(staying, dtype=torch.int64, device=device)
                tokens, lengths, limits, chosen = tokens[keep], lengths[keep], limits[keep], chosen[keep]
            if order:
                logits = self._decode(tokens, lengths + (step - 1), step + max(len(prefixes[i]) for i in order))
        self.stats.sampled += sum(caps)
        ids, values = drawn.tolist(), logprobs.tolist()
        stops, completions = sampling.stop_ids, []
        for row, prefix, cap, row_ids, row_values in zip(rows, prefixes, caps, ids, values, strict=True):
            completion = tuple(row_ids[:cap])
            row.ids = prefix + completion[:-1]  # the last token has been drawn but not read
            finish = Finish.STOP if completion[-1] in stops else Finish.LENGTH
            completions.append(Completion(completion, tuple(row_values[:cap]), finish))
        return completions

    def _retire(self, finished: list[int], active: int, slots: int) -> list[int]:
        """Move finished rows behind the active ones; returns for every place in front the place its row came from."""
        left = active - len(finished)
        done = set(finished)
        holes = [i for i in finished if i < left]
        movers = [i for i in range(left, active) if i not in done]
        self._cache.exchange(holes, movers, slots)
        source = dict(zip(holes, movers, strict=True))
        return [source.get(i, i) for i in range(left)]

    def _decode(self, tokens: Tensor, positions: Tensor, length: int) -> Tensor:
        """One token (n,) for each of the first n rows; returns logits (n, V)."""
        self._cache.reserve(length)
        hidden = torch.arange(length, device=tokens.device) > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._like.dtype, device=tokens.device).masked_fill_(hidden, -torch.inf)
        owner = torch.arange(len(tokens), device=tokens.device)
        return self._forward(tokens, positions, Layout(0, owner, positions, length, mask[:, None, None]))

    def _prefill(self, prefixes: Sequence[TokenIds], rows: Sequence[Row]) -> Tensor:
        """Read what the rows lack of their prefixes, a repeated prefix once; returns the next token's logits (n, V)."""
        cache = self._cache
        leaders = dict(zip(reversed(prefixes), reversed(rows), strict=True))  # the first row of each prefix
        cache.to_front(list(leaders.values()))
        cache.reserve(max(map(len, prefixes)))
        pending = sorted(leaders.items(), key=lambda item: item[1].index)
        logits: list[Tensor] = []
        for part in packs([len(prefix) - len(row.ids) for prefix, row in pending]):
            cached = [len(pending[i][1].ids) for i in part]
            news = [pending[i][0][start:] for i, start in zip(part, cached, strict=True)]
            widths = [len(new) for new in news]
            layout = layout_extensions(part.start, cached, widths, self._groups, self._like)
            tokens = torch.tensor([token for new in news for token in new], device=self._like.device)
            last = torch.tensor(widths, device=self._like.device).cumsum(0) - 1
            logits.append(self._forward(tokens, layout.slots, layout, last))
        for prefix, row in pending:
            row.ids = prefix
        place = {prefix: i for i, (prefix, _) in enumerate(pending)}
        followers = [(leaders[p], row, len(p)) for p, row in zip(prefixes, rows, strict=True) if row is not leaders[p]]
        cache.copy(followers)
        for source, row, _ in followers:
            row.ids = source.ids
        return torch.cat(logits)[[place[prefix] for prefix in prefixes]]

    # Scoring -----------------------------------------------------------------------------------------------------

    def _assign(self, pairs: list[_Pair]) -> tuple[dict[Row, list[_Branch]], dict[TokenIds, list[_Branch]]]:
        """The row that each pair branches off, and where. Pairs with no good row branch off histories to be read
        first, by their ids. `pairs` come longest prefix first, so that a history is planned before its beginnings."""
        index = RowIndex(self._cache.rows)
        planned: dict[Row, list[_Branch]] = {}
        for prefix, continuation in pairs:
            common, holders = index.find(prefix)
            if not holders or len(prefix) - 1 - common > min(common, LONG_BRANCH):
                holders, common = [Row(-1, prefix[:-1] or prefix)], len(prefix) - 1
                index.add(holders[0])
            planned.setdefault(holders[0], []).append((common, prefix, continuation))
        missing = {row.ids: branches for row, branches in planned.items() if row.index < 0}
        return {row: branches for row, branches in planned.items() if row.index >= 0}, missing

    def _score_rows(self, branches: dict[Row, list[_Branch]], scores: dict[_Pair, FloatArray]) -> None:
        """Score what branches off cached rows; the rows stay as they are."""
        cache, device = self._cache, self._like.device
        cache.to_front(list(branches))
        pending = sorted(branches, key=lambda row: row.index)
        tries: list[Branches] = []
        wanted: list[list[tuple[_Pair, list[int]]]] = []
        for row in pending:
            trie = Branches(len(row.ids))
            tries.append(trie)
            wanted.append([])
            for root, prefix, continuation in branches[row]:
                path = trie.add(root, prefix[root:] + continuation[:-1])
                wanted[-1].append(((prefix, continuation), path[len(prefix) - 1 - root :]))
        cache.reserve(max((trie.length + len(trie.tokens) for trie in tries), default=0))
        for part in packs([len(trie.tokens) for trie in tries]):
            some = [tries[i] for i in part]
            layout = layout_branches(part.start, some, self._groups, self._like)
            tokens = torch.tensor([t for trie in some for t in trie.tokens], device=device)
            positions = torch.tensor([p for trie in some for p in trie.positions], device=device)
            offsets = np.cumsum([0, *(len(trie.tokens) for trie in some)])
            spans = [(pair, nodes, offsets[i - part.start]) for i in part for pair, nodes in wanted[i]]
            kept, which = np.unique([o + node for _, nodes, o in spans for node in nodes], return_inverse=True)
            targets = torch.tensor([t for (_, continuation), _, _ in spans for t in continuation], device=device)
            logits = self._forward(tokens, positions, layout, torch.from_numpy(kept).to(device)).float()
            which_t = torch.from_numpy(which).to(device)
            values = (logits[which_t, targets] - logits.logsumexp(-1)[which_t]).double().cpu().numpy()
            cuts = np.cumsum([len(nodes) for _, nodes, _ in spans])[:-1]
            scores.update(zip([pair for pair, _, _ in spans], np.split(values, cuts), strict=True))

    # The model ---------------------------------------------------------------------------------------------------

    @property
    def _cache(self) -> RowCache:
        return self._caches[self._answering]

    def _forward(self, tokens: Tensor, positions: Tensor, layout: Layout, keep: Tensor | int = 0) -> Tensor:
        """Logits (K, V) at the positions `keep` (K,) of T packed tokens, at all of them by default."""
        self.stats.computed += len(tokens)
        cache = self._cache
        cache.layout = layout
        output = self._decoder(
            input_ids=tokens[None],
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
            layout=layout,
        )
        logits: Tensor = output.logits[0]
        return logits

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Evaluation mode, packed attention and merged adapter, all as before on exit."""
        self._decoder = _decoder(self._model)
        weight = self._decoder.get_input_embeddings().weight
        self._like = torch.empty(0, dtype=weight.dtype, device=weight.device)
        config, training = self._decoder.config, [module for module in self._model.modules() if module.training]
        attention = config._attn_implementation
        merged = self._answering == "policy"
        with ExitStack() as stack:
            if merged:
                stack.enter_context(self._adapter.swapped_in())
            stack.enter_context(torch.inference_mode())
            try:
                self._model.eval()
                config._attn_implementation = ATTENTION
                yield
            finally:
                config._attn_implementation = attention
                for module in training:
                    module.training = True

    def _check_length(self, name: str, prefix: int, new: int) -> None:
        if prefix == 0:
            raise ValueError(f"{name} has an empty prefix")
        if prefix + new > self.context_length:
            raise ValueError(f"{name}: {prefix} prefix + {new} new tokens exceed the context of {self.context_length}")


_Pair = tuple[TokenIds, TokenIds]  # prefix and continuation
_Branch = tuple[int, TokenIds, TokenIds]  # cached tokens it starts from, prefix, continuation


def _decoder(model: nn.Module) -> Any:
    """The causal language model itself, without a PeftModel around it (its adapter layers stay inside)."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
