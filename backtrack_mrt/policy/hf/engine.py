"""The Hugging Face engine: samples from the very module that is being trained, with a cache that outlives the calls.

A rollout calls `generate` once per turn, each time with the history and a new instruction; only the instruction goes
through the model. `score` branches off the same cached rows: one forward pass over the branches, whatever the number of
prefixes. The members of a group share the prefill of their prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from backtrack_mrt.errors import Collapsed
from backtrack_mrt.policy.dimensions import context_length
from backtrack_mrt.policy.engine import KEPT, KEPT_BY_CPU, Engine, Pair
from backtrack_mrt.policy.hf.arithmetic import is_exact
from backtrack_mrt.policy.hf.kv_cache import CacheRow, RowIndex
from backtrack_mrt.policy.hf.lora import MergedAdapter
from backtrack_mrt.policy.hf.runner import Branch, Runner
from backtrack_mrt.policy.sampling import check_drawn, draw, uniforms
from backtrack_mrt.runs import environment
from backtrack_mrt.types import Completion, Finish, FloatArray, Request, Sampling, TokenIds

LONG_BRANCH = 256  # a longer piece of history that is not cached gets a row before branches leave it


class HFEngine(Engine):
    """`model` is a causal language model or a PeftModel around one, shared with the trainer and never modified.

    max_rows: rows decoded at once; larger calls are cut. reference_model: the frozen reference
    where all weights are trained; with an adapter the reference is the model without it. compiled: in compiled code
    where there is some (see `compiled`).
    """

    def __init__(
        self, model: nn.Module, *, max_rows: int, reference_model: nn.Module | None = None, compiled: bool = True
    ) -> None:
        super().__init__(context_length(model.config), max_rows)
        self.exact = is_exact(model)
        self._policy = Runner(model, max_rows, self.stats, MergedAdapter(model), compiled)
        self._reference: Runner | None = None
        if reference_model is not None or isinstance(model, PeftModel):
            self._reference = Runner(reference_model or model, max_rows, self.stats, None, compiled)
        self._knows_reference = self._reference is not None

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        completions: list[Completion] = []
        cache = self._runner.cache
        with self._runner.inference():
            claims = cache.claim([request.prefix_ids for request in requests])
            for start in range(0, len(requests), self.max_rows):
                part = slice(start, start + self.max_rows)
                rows = cache.place([request.prefix_ids for request in requests[part]], claims[part])
                completions += self._complete(requests[part], rows, sampling)
        try:
            check_drawn(logprob for completion in completions for logprob in completion.logprobs)
        except Collapsed:
            self._drop()  # what is not finite would poison the histories to come
            raise
        return completions

    def _score(self, pairs: Sequence[Pair], endings: Mapping[Pair, TokenIds]) -> list[FloatArray]:
        """Equal pairs are computed once, and so is what the branches of a row have in common."""
        scores = {pair: np.zeros(0) for pair in pairs if not pair[1]}
        runner = self._runner
        with runner.inference():
            cached, missing = self._assign(sorted(set(pairs) - set(scores), key=lambda pair: -len(pair[0])))
            scores.update(runner.score(cached, endings))
            trunks = list(missing)
            for start in range(0, len(trunks), self.max_rows):
                part = trunks[start : start + self.max_rows]
                rows = runner.cache.place(part, runner.cache.claim(part))
                runner.prefill(part, rows)
                scores.update(runner.score({row: missing[ids] for row, ids in zip(rows, part, strict=True)}, endings))
        if any(np.isnan(row).any() for row in scores.values()):
            self._drop()  # as in `_generate`
        return [scores[pair].copy() for pair in pairs]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """See `Engine.reference`."""
        model = self._policy.model
        shared = self._reference is not None and self._reference.model is model and not self._in_reference
        with super().reference(), model.disable_adapter() if shared else nullcontext():  # type: ignore[operator]
            yield

    @property
    def _runner(self) -> Runner:
        """The one that answers."""
        return self._reference if self._reference is not None and self._in_reference else self._policy

    def sync(self) -> None:
        """See `Engine.sync`. The reference's cache stays: its weights never change. What an update has freed makes room
        for the histories to come."""
        super().sync()
        self._forget(self._policy)
        environment.give_back()

    def release(self) -> None:
        """See `Engine.release`. A small part of the device's memory is kept."""
        self._forget(*self._runners)

    def _forget(self, *runners: Runner) -> None:
        """What the runners made of their weights, with its memory unless all take little (`KEPT`)."""
        on_gpu = torch.cuda.is_available() and self._policy.graphs is not None
        little = KEPT * torch.cuda.mem_get_info()[1] if on_gpu else KEPT_BY_CPU
        small = sum(runner.size for runner in self._runners) < little
        for runner in runners:
            (runner.renew if small else runner.drop)()

    def close(self) -> None:
        """See `Engine.close`. Merged and copied weights go, too."""
        self._drop()

    def _drop(self) -> None:
        """All that was made of the weights, with its memory."""
        for runner in self._runners:
            runner.drop()

    @property
    def _runners(self) -> list[Runner]:
        return [self._policy, *([self._reference] if self._reference else [])]

    def _complete(self, requests: Sequence[Request], rows: Sequence[CacheRow], sampling: Sampling) -> list[Completion]:
        """Prefill and decode requests that fit into one batch."""
        runner = self._runner
        prefixes = [request.prefix_ids for request in requests]
        caps = [min(r.max_new_tokens, self.context_length - len(r.prefix_ids)) for r in requests]
        logits = runner.prefill(prefixes, rows, ahead=max(caps))
        device = logits.device
        runner.arrange(rows)
        drawn = torch.zeros(len(rows), max(caps), dtype=torch.int64, device=device)
        logprobs = torch.zeros(len(rows), max(caps), dtype=torch.float32, device=device)
        noise = uniforms([request.seed for request in requests], max(caps), device)
        is_stop = torch.zeros(logits.shape[-1], dtype=torch.bool, device=device)
        is_stop[list(sampling.stop_ids)] = True
        # From here on, item i of every list and tensor is the i-th active row of the cache; `order` names its request.
        order = sorted(range(len(rows)), key=lambda i: rows[i].index)
        chosen = torch.tensor(order, device=device)
        owner = torch.tensor([rows[i].index for i in order], device=device)
        lengths = torch.tensor([len(prefixes[i]) for i in order], device=device)
        limits = torch.tensor([caps[i] for i in order], device=device)
        logits = logits[chosen]
        step, longest = 0, max(map(len, prefixes))
        while order:
            tokens, token_logprobs = draw(logits, noise[chosen, step], sampling)
            drawn[chosen, step], logprobs[chosen, step] = tokens, token_logprobs
            step += 1
            finished = (is_stop[tokens] | (limits <= step)).nonzero().flatten().tolist()  # the step's only sync
            if finished:
                for i in finished:
                    caps[order[i]] = step
                staying = runner.retire(finished, len(order), longest + step)
                order = [order[i] for i in staying]
                longest = max((len(prefixes[i]) for i in order), default=0)
                owner = torch.tensor([rows[i].index for i in order], device=device)
                keep = torch.tensor(staying, dtype=torch.int64, device=device)
                tokens, lengths, limits, chosen = tokens[keep], lengths[keep], limits[keep], chosen[keep]
            if order:
                logits = runner.step(tokens, owner, lengths + (step - 1), longest + step)
        self.stats.sampled += sum(caps)
        completions = []
        ids_by_row, values_by_row = drawn.tolist(), logprobs.tolist()
        for row, prefix, count, ids, values in zip(rows, prefixes, caps, ids_by_row, values_by_row, strict=True):
            completion = tuple(ids[:count])
            row.ids = prefix + completion[:-1]  # the last token has been drawn but not read
            finish = Finish.STOP if completion[-1] in sampling.stop_ids else Finish.LENGTH
            completions.append(Completion(completion, tuple(values[:count]), finish))
        return completions

    def _assign(self, pairs: Sequence[Pair]) -> tuple[dict[CacheRow, list[Branch]], dict[TokenIds, list[Branch]]]:
        """For each pair the cached row it branches off, or, where there is no good one, a history to be read first.
        `pairs` come longest prefix first, so that a history is planned before its own beginnings are asked for."""
        index = RowIndex(self._runner.cache.rows)
        planned: dict[CacheRow, list[Branch]] = {}
        for pair in pairs:
            prefix = pair[0]
            common, holders = index.find(prefix)
            if not holders or len(prefix) - 1 - common > min(common, LONG_BRANCH):
                holders, common = [CacheRow(-1, prefix[:-1] or prefix)], len(prefix) - 1
                index.add(holders[0])
            planned.setdefault(holders[0], []).append((common, pair))
        cached = {row: branches for row, branches in planned.items() if row.index >= 0}
        return cached, {row.ids: branches for row, branches in planned.items() if row.index < 0}
