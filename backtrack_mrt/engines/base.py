"""The engine seam: tokens in, tokens and logprobs out. An engine knows no problems, turns or text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from backtrack_mrt.types import Completion, FloatArray, Request, Sampling, TokenIds


@dataclass
class EngineStats:
    """Work done since the last reset. `computed` counts every position that went through the model, padding included;
    `sampled` counts tokens drawn; `scored` counts continuation tokens scored."""

    computed: int = 0
    sampled: int = 0
    scored: int = 0


class Engine(Protocol):
    """What samples from the policy. Implementations keep the history of the last calls cached, so that a prefix which
    extends an earlier one costs only its new tokens; callers see no difference but the time."""

    stats: EngineStats
    context_length: int

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Sample one completion per request, in order. At most `max_new_tokens` each; a sampled stop id ends it and
        belongs to it. Logprobs are at `sampling.temperature` (temperature 0 means greedy; its logprobs are at 1)."""

    def score(self, prefixes: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """log π(continuation_t | prefix, continuation_<t) at temperature 1, one array (len(continuation),) per pair."""

    def reference(self) -> AbstractContextManager[None]:
        """Within the context the frozen reference policy answers (LoRA adapter off)."""

    def sync(self, version: int) -> None:
        """The policy's weights changed (now at update `version`): forget everything cached from the old ones."""

    def release(self) -> None:
        """Drop the cached history (its memory is wanted for the update)."""
