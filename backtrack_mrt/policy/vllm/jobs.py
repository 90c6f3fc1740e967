"""What vLLM is asked, in this process or over HTTP: one `Job` per row, a chunk of them at once.

vLLM's own sampler is left out. Its seeds depend on the batch in bfloat16, its logprobs are engine-wide either before
the temperature or after top_p, and it cannot be told what to say. Instead every job carries how its tokens are drawn,
and `draws.Draws`, a logits processor, draws them: with the HF engine's own `draw`, so that the same seed gives the
same tokens, or, to score, the tokens of the continuation one after the other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

import numpy as np

from backtrack_mrt.policy.engine import Engine, Pair
from backtrack_mrt.policy.sampling import check_drawn
from backtrack_mrt.types import Completion, Finish, FloatArray, Request, Sampling, TokenIds

Draw = dict[str, int | float | list[int]]  # JSON: it travels as `extra_args`
PATH = "/v1/jobs"  # of a server's endpoint for them
WEIGHTS_PATH = "/v1/weights"  # of its endpoint for all weights of a model
_COLDEST = 1e-30  # logits that are divided by less are infinite


@dataclass(frozen=True, slots=True)
class Job:
    """One row: at most `max_new_tokens` (≥ 1) behind the prompt, drawn as `draw` says."""

    prompt_ids: TokenIds
    max_new_tokens: int
    draw: Draw
    stop_ids: list[int] = field(default_factory=list)

    def objection(self, vocabulary: int, context_length: int) -> str | None:
        """Why a model of so many tokens and that context cannot do it, if so: vLLM's engine, asked for it, would be
        gone for all who ask it."""
        told, endings = (self.draw.get(name, []) for name in ("forced", "endings"))
        if not (isinstance(told, list) and isinstance(endings, list)):
            return "what is forced is no list of tokens"
        if odd := [
            id for ids in (self.prompt_ids, self.stop_ids, told, endings) for id in ids if not 0 <= id < vocabulary
        ]:
            return f"token {odd[0]} is none of the model's, which has {vocabulary}"
        if not (self.prompt_ids and 1 <= self.max_new_tokens <= context_length - len(self.prompt_ids)):
            lengths = f"{len(self.prompt_ids)} tokens and {self.max_new_tokens} new ones"
            return f"{lengths} are not at least one of each, and at most {context_length} together"
        if "forced" in self.draw:
            lacks = len(told) != self.max_new_tokens
            return f"{len(told)} tokens are forced, not {self.max_new_tokens}" if lacks else None
        seed, temperature, top_p = (self.draw.get(name) for name in ("seed", "temperature", "top_p"))
        if not (isinstance(seed, int) and isinstance(temperature, int | float) and isinstance(top_p, int | float)):
            return "neither tokens that are forced nor seed, temperature and top_p"
        if not ((temperature == 0 or _COLDEST <= temperature < inf) and 0 < top_p <= 1):
            return f"nothing can be drawn at temperature {temperature:g} and top_p {top_p:g}"
        return None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The answer to a job: tokens and logprobs, both (T,). cached: positions of the prompt that were not computed."""

    token_ids: TokenIds
    logprobs: tuple[float, ...]
    cached: int = 0


def as_json(rows: Sequence[Job] | Sequence[Drawn]) -> list[dict[str, Any]]:
    """Each with its fields by name."""
    return [{each.name: getattr(row, each.name) for each in fields(row)} for row in rows]


def sampled(seed: int, sampling: Sampling) -> Draw:
    """Tokens of the policy. Of the seed 64 bits count, as everywhere."""
    return {"seed": seed % 2**64, "temperature": sampling.temperature, "top_p": sampling.top_p}


def forced(token_ids: TokenIds, endings: TokenIds = ()) -> Draw:
    """These tokens, one after the other, with their logprobs at temperature 1; the last one's is that of any of the
    `endings`, if there are any."""
    draw: Draw = {"forced": list(token_ids)}
    return draw | {"endings": list(endings)} if endings else draw


class JobEngine(Engine):
    """The engine contract on top of `_run`. vLLM has the weights when `sync` returns: the policy may change while it is
    asked."""

    exact = False

    @abstractmethod
    def _run(self, jobs: Sequence[Job]) -> list[Drawn]:
        """The answers to the jobs, in order, by the reference if `_in_reference`."""

    @abstractmethod
    def _hand_over(self) -> None:
        """Give vLLM the policy's weights as they are now."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop the prefix cache."""

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        jobs = [self._job(request, sampling) for request in requests]
        return [self._completion(*both) for both in zip(jobs, self._run(jobs), strict=True)]

    def _score(self, pairs: Sequence[Pair], endings: Mapping[Pair, TokenIds]) -> list[FloatArray]:
        """By forced decoding: vLLM's `prompt_logprobs` would not use the prefix cache."""
        jobs = [Job(prefix, len(ids), forced(ids, endings.get((prefix, ids), ()))) for prefix, ids in pairs if ids]
        drawn = self._run(jobs)
        for both in zip(jobs, drawn, strict=True):
            self._count(*both)
        answers = iter(drawn)
        return [np.array(next(answers).logprobs if ids else (), dtype=np.float64) for _, ids in pairs]

    def sync(self) -> None:
        """See `Engine.sync`."""
        super().sync()
        self._forget()
        self._hand_over()

    def release(self) -> None:
        """See `Engine.release`."""
        self._forget()

    def _job(self, request: Request, sampling: Sampling) -> Job:
        length = min(request.max_new_tokens, self.context_length - len(request.prefix_ids))
        return Job(request.prefix_ids, length, sampled(request.seed, sampling), sorted(sampling.stop_ids))

    def _completion(self, job: Job, drawn: Drawn) -> Completion:
        check_drawn(drawn.logprobs)
        self._count(job, drawn)
        self.stats.sampled += len(drawn.token_ids)
        finish = Finish.STOP if drawn.token_ids[-1] in job.stop_ids else Finish.LENGTH
        return Completion(drawn.token_ids, drawn.logprobs, finish)

    def _count(self, job: Job, drawn: Drawn) -> None:
        self.stats.computed += len(job.prompt_ids) - drawn.cached + len(drawn.token_ids) - 1
