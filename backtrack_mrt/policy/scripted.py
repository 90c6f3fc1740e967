"""An engine without a model: it says what it is told, or samples from a toy distribution. For tests of what stands
above the engine seam; it keeps the whole contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from backtrack_mrt.policy.engine import Engine, Pair
from backtrack_mrt.policy.sampling import draw, uniforms
from backtrack_mrt.types import Completion, Finish, FloatArray, Request, Sampling, TokenIds

Script = Callable[[TokenIds], TokenIds] | Sequence[TokenIds]


class ScriptedEngine(Engine):
    """Replies by `script`: a function of the prefix, or replies in the order in which they are asked for. A reply is
    cut behind its first stop id and at the request's length. Without a script, tokens are sampled.

    Logprobs are those of a bigram model over `vocabulary` ids, made of hashes: the same in `generate` and `score`. The
    reference is another such model. `synced` and `released` count the calls of `sync` and `release`.
    """

    exact = True

    def __init__(
        self,
        script: Script | None = None,
        *,
        vocabulary: int = 512,
        context_length: int = 4096,
    ) -> None:
        super().__init__(context_length)
        self._script: Callable[[TokenIds], TokenIds] | None
        if script is None or callable(script):
            self._script = script
        else:
            replies = iter(script)
            self._script = lambda prefix: next(replies)
        self.vocabulary = vocabulary
        self.synced = 0
        self.released = 0

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [self._complete(request, sampling) for request in requests]

    def _score(self, pairs: Sequence[Pair], endings: Mapping[Pair, TokenIds]) -> list[FloatArray]:
        scores = []
        for prefix, continuation in pairs:
            logprobs = [self._logits(t).log_softmax(-1) for t in (prefix + continuation)[len(prefix) - 1 : -1]]
            scores.append(np.array([float(row[t]) for row, t in zip(logprobs, continuation, strict=True)]))
            if alike := endings.get((prefix, continuation)):
                scores[-1][-1] = float(logprobs[-1][list(alike)].logsumexp(-1))
            self.stats.computed += len(prefix) + len(continuation)
        return scores

    def sync(self) -> None:
        """See `Engine.sync`."""
        super().sync()
        self.synced += 1

    def release(self) -> None:
        """See `Engine.release`."""
        self.released += 1

    def _complete(self, request: Request, sampling: Sampling) -> Completion:
        prefix = request.prefix_ids
        length = min(request.max_new_tokens, self.context_length - len(prefix))
        ids: list[int] = []
        logprobs: list[float] = []
        said = self._script(prefix) if self._script else None
        noise = uniforms([request.seed], length)
        for step in range(length if said is None else min(length, len(said))):
            logits = self._logits((*prefix, *ids)[-1])
            if said is None:
                token, logprob = (float(x) for x in draw(logits[None], noise[:, step], sampling))
            else:
                token = said[step]
                logprob = float((logits / (sampling.temperature or 1.0)).log_softmax(-1)[token])
            ids.append(int(token))
            logprobs.append(logprob)
            if ids[-1] in sampling.stop_ids:
                break
        if not ids:
            raise ValueError("the script replied with no token: a completion has at least one")
        self.stats.computed += len(prefix) + len(ids)
        self.stats.sampled += len(ids)
        finish = Finish.STOP if ids[-1] in sampling.stop_ids else Finish.LENGTH
        return Completion(tuple(ids), tuple(logprobs), finish)

    def _logits(self, previous: int) -> Tensor:
        """Logits of the token that follows `previous`, shape (V,)."""
        seed = (self._in_reference << 32) + previous
        return (uniforms([seed], self.vocabulary)[0] * 4).to(torch.float32)
