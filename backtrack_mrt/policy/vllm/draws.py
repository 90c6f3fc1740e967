"""The logits processor that draws vLLM's tokens (see `jobs`). A server loads it, too:
`vllm serve … --logits-processors backtrack_mrt.policy.vllm.draws:Draws --logprobs-mode processed_logits`.

It leaves one finite logit per row: the drawn token's, and its value is the token's logprob. vLLM then takes the
likeliest token (jobs ask for temperature 0) and reports its processed logit as its logprob. So both are exact whatever
the temperature and top_p, and nothing depends on how rows are batched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm import RequestOutput, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from backtrack_mrt.policy.sampling import draw, uniforms
from backtrack_mrt.policy.vllm.jobs import Drawn, Job
from backtrack_mrt.types import Sampling


def params_of(job: Job) -> SamplingParams:
    """How vLLM is asked for a job."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=job.max_new_tokens,
        stop_token_ids=job.stop_ids,
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args=job.draw,
    )


def answer_of(output: RequestOutput) -> Drawn:
    """What vLLM drew."""
    ids, steps = output.outputs[0].token_ids, output.outputs[0].logprobs
    logprobs = tuple(step[token].logprob for token, step in zip(ids, steps, strict=True))
    return Drawn(tuple(ids), logprobs, output.num_cached_tokens or 0)


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One request in vLLM's batch. `output_ids` is vLLM's own list of the tokens drawn so far; their number says which
    uniform or which forced token is next, also after a preemption or a half-read prompt."""

    sampling: Sampling | None  # None: the tokens are forced
    uniforms: Sequence[float]
    forced: Sequence[int]
    output_ids: Sequence[int]
    endings: Sequence[int] = ()  # tokens that the last forced one stands for


@dataclass(frozen=True, slots=True)
class Alike:
    """Rows of the batch that are drawn alike, and where they stand in it (n,), on the device of the logits."""

    sampling: Sampling | None
    rows: list[BatchRow]
    places: Tensor


class Draws(LogitsProcessor):  # type: ignore[misc]
    """Draws as each request's `extra_args` say; requests without any are left to vLLM.

    Nothing here waits for a GPU, or vLLM's asynchronous scheduling would be undone: places change with the batch only,
    and what a step adds, a number for each row, is copied from pinned memory. Such memory is new every time: PyTorch
    does not give it out again before the copy is done.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._device, self._pins = device, is_pin_memory
        self._rows: dict[int, BatchRow] = {}  # by index in the batch
        self._alike: list[Alike] = []

    def is_argmax_invariant(self) -> bool:
        """No: it decides the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows as they join, leave and move."""
        if not process_dict_updates(self._rows, batch_update, _row):
            return
        alike: dict[Sampling | None, list[int]] = defaultdict(list)
        for index, row in self._rows.items():
            alike[row.sampling].append(index)
        self._alike = [
            Alike(sampling, [self._rows[index] for index in indices], self._sent(indices, torch.int64))
            for sampling, indices in alike.items()
        ]

    def apply(self, logits: Tensor) -> Tensor:
        """Draw one token for every row of logits (B, V)."""
        for alike in self._alike:
            tokens, logprobs = self._draw(logits[alike.places], alike)
            logits.index_fill_(0, alike.places, -torch.inf)
            logits[alike.places, tokens] = logprobs
        return logits

    def _draw(self, logits: Tensor, alike: Alike) -> tuple[Tensor, Tensor]:
        """Tokens (n,) and their logprobs (n,), from the rows' logits (n, V)."""
        rows = alike.rows
        if alike.sampling is not None:
            noise = [row.uniforms[len(row.output_ids)] for row in rows]
            return draw(logits, self._sent(noise, torch.float64), alike.sampling)
        tokens = self._sent([row.forced[len(row.output_ids)] for row in rows], torch.int64)
        chosen = logits.gather(1, tokens[:, None])[:, 0]
        for i, row in enumerate(rows):
            if row.endings and len(row.output_ids) == len(row.forced) - 1:
                chosen[i] = logits[i, self._sent(row.endings, torch.int64)].logsumexp(-1)
        return tokens, chosen - logits.logsumexp(-1)

    def _sent(self, values: Sequence[float], dtype: torch.dtype) -> Tensor:
        """On the device, without waiting for it."""
        return torch.tensor(values, dtype=dtype, pin_memory=self._pins).to(self._device, non_blocking=True)


def _row(params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> BatchRow | None:
    asked = params.extra_args or {}
    if "forced" in asked:
        return BatchRow(None, (), asked["forced"], output_ids, asked.get("endings", ()))
    if "seed" not in asked:
        return None
    noise = uniforms([asked["seed"]], params.max_tokens)[0].tolist()
    return BatchRow(Sampling(asked["temperature"], asked["top_p"]), noise, (), output_ids)
