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


class Draws(LogitsProcessor):  # type: ignore[misc]
    """Draws as each request's `extra_args` say; requests without any are left to vLLM."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, BatchRow] = {}  # by index in the batch

    def is_argmax_invariant(self) -> bool:
        """No: it decides the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows as they join, leave and move."""
        process_dict_updates(self._rows, batch_update, _row)

    def apply(self, logits: Tensor) -> Tensor:
        """Draw one token for every row of logits (B, V)."""
        if not self._rows:
            return logits
        alike: dict[Sampling | None, list[int]] = defaultdict(list)
        for index, row in self._rows.items():
            alike[row.sampling].append(index)
        drawn = [(indices, *self._draw(logits[indices], sampling, indices)) for sampling, indices in alike.items()]
        logits[list(self._rows)] = -torch.inf
        for indices, tokens, logprobs in drawn:
            logits[indices, tokens] = logprobs
        return logits

    def _draw(self, logits: Tensor, sampling: Sampling | None, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tokens (n,) and their logprobs (n,) for the rows at `indices`, which are drawn alike."""
        rows = [self._rows[index] for index in indices]
        if sampling is None:
            tokens = torch.tensor([row.forced[len(row.output_ids)] for row in rows], device=logits.device)
            chosen = logits.gather(1, tokens[:, None])[:, 0]
            for i, row in enumerate(rows):
                if row.endings and len(row.output_ids) == len(row.forced) - 1:
                    chosen[i] = logits[i, list(row.endings)].logsumexp(-1)
            return tokens, chosen - logits.logsumexp(-1)
        noise = [row.uniforms[len(row.output_ids)] for row in rows]
        return draw(logits, torch.tensor(noise, dtype=torch.float64, device=logits.device), sampling)


def _row(params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> BatchRow | None:
    asked = params.extra_args or {}
    if "forced" in asked:
        return BatchRow(None, (), asked["forced"], output_ids, asked.get("endings", ()))
    if "seed" not in asked:
        return None
    noise = uniforms([asked["seed"]], params.max_tokens)[0].tolist()
    return BatchRow(Sampling(asked["temperature"], asked["top_p"]), noise, (), output_ids)
