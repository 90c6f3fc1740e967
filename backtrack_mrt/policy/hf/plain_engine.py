"""The engine for architectures that the cached rows of `HFEngine` do not serve: slower, and exact for all of them.

It lets the model decode as transformers does, with the cache that its architecture has (sliding windows, compressed or
learnt states). Rows of one length go through side by side, so that nothing is ever padded, and nothing outlives a call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from backtrack_mrt.policy.dimensions import context_length
from backtrack_mrt.policy.engine import Engine, Pair
from backtrack_mrt.policy.hf.arithmetic import as_trained, attending, evaluating, is_exact
from backtrack_mrt.policy.sampling import check_drawn, draw, uniforms
from backtrack_mrt.types import Completion, Finish, FloatArray, Request, Sampling, TokenIds

LOGITS = 1 << 27  # of one pass that scores: half a gigabyte


class PlainEngine(Engine):
    """`model`, `max_rows` and `reference_model` are those of `HFEngine`."""

    def __init__(self, model: nn.Module, *, max_rows: int, reference_model: nn.Module | None = None) -> None:
        super().__init__(context_length(model.config), max_rows)
        self.exact = is_exact(model)
        self._model, self._reference = model, reference_model or (model if isinstance(model, PeftModel) else None)
        self._knows_reference = self._reference is not None
        config: Any = model.config
        self._attention = config._attn_implementation

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        completions: dict[int, Completion] = {}
        with self._answering() as model:
            for rows in _of_one_length([request.prefix_ids for request in requests], self.max_rows):
                some = [requests[row] for row in rows]
                completions |= zip(rows, self._complete(model, some, sampling), strict=True)
        return [completions[row] for row in range(len(requests))]

    def _score(self, pairs: Sequence[Pair], endings: Mapping[Pair, TokenIds]) -> list[FloatArray]:
        """Equal pairs are computed once."""
        scores: dict[Pair, FloatArray] = {}
        distinct = sorted(set(pairs))
        with self._answering() as model:
            whole = [prefix + continuation for prefix, continuation in distinct]
            for rows in _of_one_length(whole, self.max_rows, LOGITS // model.get_input_embeddings().num_embeddings):
                logprobs = self._read(model, [whole[row] for row in rows])
                for row, found in zip(rows, logprobs, strict=True):
                    scores[distinct[row]] = _chosen(found, distinct[row], endings.get(distinct[row]))
        return [scores[pair].copy() for pair in pairs]

    @contextmanager
    def _answering(self) -> Iterator[Any]:
        """The model that answers, in evaluation mode and with the attention that it came with, which a trainer that
        packs its rows replaces; it is as before on exit."""
        model: Any = self._reference if self._in_reference else self._model
        without = self._in_reference and model is self._model
        alone = model.disable_adapter() if without else nullcontext()
        attention = attending(model.config, self._attention)
        with torch.inference_mode(), as_trained(model), evaluating(model), attention, alone:
            yield model

    def _complete(self, model: Any, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Completions of prefixes of one length, drawn in step."""
        tokens = _tensor([request.prefix_ids for request in requests], model)
        length = tokens.shape[1]
        caps = [min(request.max_new_tokens, self.context_length - length) for request in requests]
        noise = uniforms([request.seed for request in requests], max(caps), tokens.device)
        drawn, logprobs, ends = list[Tensor](), list[Tensor](), dict[int, int]()
        past = None
        for step in range(max(caps)):
            output = model(input_ids=tokens, past_key_values=past, use_cache=True)
            self.stats.computed += tokens.numel()
            found, values = draw(output.logits[:, -1], noise[:, step], sampling)
            drawn.append(found)
            logprobs.append(values)
            for row, token in enumerate(found.tolist()):
                if row not in ends and (token in sampling.stop_ids or step + 1 == caps[row]):
                    ends[row] = step + 1
            if len(ends) == len(requests):
                break
            tokens, past = found[:, None], output.past_key_values
        self.stats.sampled += sum(ends.values())
        completions = []
        rows = zip(torch.stack(drawn, 1).tolist(), torch.stack(logprobs, 1).tolist(), strict=True)
        for row, (ids, values_of) in enumerate(rows):
            ids, values_of = tuple(ids[: ends[row]]), tuple(values_of[: ends[row]])
            check_drawn(values_of)
            completions.append(
                Completion(ids, values_of, Finish.STOP if ids[-1] in sampling.stop_ids else Finish.LENGTH)
            )
        return completions

    def _read(self, model: Any, rows: Sequence[TokenIds]) -> Tensor:
        """Log-probabilities (n, L, V) after every token of rows of one length."""
        tokens = _tensor(rows, model)
        self.stats.computed += tokens.numel()
        logprobs: Tensor = model(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)
        return logprobs


def _chosen(logprobs: Tensor, pair: Pair, ending: TokenIds | None) -> FloatArray:
    """The continuation's log-probabilities among those (L, V) after every token of the pair; see `Engine.score`."""
    prefix, continuation = pair
    after = logprobs[len(prefix) - 1 : len(prefix) - 1 + len(continuation)]
    targets = torch.tensor(continuation, dtype=torch.int64, device=after.device)
    chosen = after.gather(-1, targets[:, None])[:, 0]
    if ending:
        chosen[-1] = after[-1, list(ending)].logsumexp(-1)
    values: FloatArray = chosen.double().cpu().numpy()
    return values


def _of_one_length(rows: Sequence[TokenIds], most: int, tokens: int | None = None) -> Iterator[list[int]]:
    """Which rows go through together: at most so many, of so many tokens in all (but at least one)."""
    for length, alike in groupby(sorted(range(len(rows)), key=lambda row: len(rows[row])), lambda row: len(rows[row])):
        indices = list(alike)
        size = most if tokens is None else max(min(most, tokens // length), 1)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _tensor(rows: Sequence[TokenIds], model: Any) -> Tensor:
    return torch.tensor(rows, device=model.get_input_embeddings().weight.device)
