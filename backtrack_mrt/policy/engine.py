"""The engine seam: tokens in, tokens and logprobs out. An engine knows no problems, turns or text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from backtrack_mrt.types import Completion, FloatArray, Request, Sampling, TokenIds

Pair = tuple[TokenIds, TokenIds]  # prefix and continuation
KEPT = 1 / 8  # of a GPU's memory: an engine in this process that takes less keeps it during updates
KEPT_BY_CPU = 2**29  # bytes; the same on a CPU, where memory that is given back is found anew in every step


@dataclass
class EngineStats:
    """Work done since the last reset. `computed` counts every position that went through the model, padding included;
    `sampled` counts tokens drawn; `scored` counts continuation tokens scored."""

    computed: int = 0
    sampled: int = 0
    scored: int = 0


class Sampler(Protocol):
    """What a rollout needs of an engine."""

    context_length: int

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Sample one completion per request, in order. At most `max_new_tokens` each; a sampled stop id ends it and
        belongs to it. Logprobs are at `sampling.temperature` (temperature 0 means greedy; its logprobs are at 1)."""


Answered = Callable[[int, Completion], Request | None]
"""Told a row and what was sampled in it; gives what is to be sampled there next (None: nothing)."""


@runtime_checkable
class Continuous(Protocol):
    """A sampler in which no row waits for the others' turns."""

    def converse(self, requests: Mapping[int, Request], sampling: Sampling, answered: Answered) -> None:
        """Sample what each row asks as `Sampler.generate` does, and at once what `answered` has that row ask next,
        until no row asks for anything. What rows are given does not depend on their order."""


class Engine(ABC):
    """What samples from the policy. Engines keep the history of the last calls cached, so that a prefix which extends
    an earlier one costs only its new tokens; callers see no difference but the time. What is asked is checked here.

    max_rows: rows sampled at once. `before_sync`: where a launcher cuts the model up, what brings the weights to the
    copy that is sampled from (`policy.whole`); `sync` calls it first, in all processes.
    """

    exact: bool
    """Whether its logprobs are those of the module that is trained. Where they are not, the trainer corrects for it."""
    scores: bool = True
    """Whether it can `score`. All can but a server that tells no probabilities."""
    _knows_reference = True
    _in_reference = False  # whether the reference is to answer

    def __init__(self, context_length: int, max_rows: int = 1) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {max_rows}")
        self.stats = EngineStats()
        self.context_length, self.max_rows = context_length, max_rows
        self.before_sync: Callable[[], object] = lambda: None

    @property
    def cache_tokens(self) -> int | None:
        """Tokens of history that it keeps cached between calls (None: all of as many rows as it is asked for)."""
        return None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Sampler.generate`. Raises ValueError for what cannot be asked."""
        check_requests(requests, self.context_length)
        return self._generate(requests, sampling)

    @abstractmethod
    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """`generate` for requests that were checked."""

    def score(
        self,
        prefixes: Sequence[TokenIds],
        continuations: Sequence[TokenIds],
        endings: Sequence[TokenIds] | None = None,
    ) -> list[FloatArray]:
        """log π(continuation_t | prefix, continuation_<t) at temperature 1, one array (len(continuation),) per pair.

        endings: for each pair, tokens that end it as well as its last one does; the last logprob is then that of any of
        them (none: of that token alone). They are the same for equal pairs. Raises ValueError for what cannot be asked.
        """
        pairs = list(zip(prefixes, continuations, strict=True))
        scores = self._score(pairs, check_pairs(pairs, endings, self.context_length))
        self.stats.scored += sum(map(len, continuations))
        return scores

    @abstractmethod
    def _score(self, pairs: Sequence[Pair], endings: Mapping[Pair, TokenIds]) -> list[FloatArray]:
        """`score` for pairs that were checked, with the endings of those that have some."""

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within the context the frozen reference policy answers (LoRA adapter off)."""
        if not self._knows_reference:
            raise ValueError("no reference policy: pass reference_model, or train an adapter instead of all weights")
        before, self._in_reference = self._in_reference, True
        try:
            yield
        finally:
            self._in_reference = before

    def sync(self) -> None:
        """The policy's weights changed: take them as they are now, and forget everything cached from the old ones."""
        self.before_sync()

    def release(self) -> None:  # noqa: B027
        """Drop the cached history; its memory is wanted for the update, unless it is little."""

    def close(self) -> None:  # noqa: B027
        """Give back all that the engine holds. It is not used again."""


def check_requests(requests: Sequence[Request], context_length: int) -> None:
    """Raises ValueError for what `Engine.generate` cannot be asked."""
    for i, request in enumerate(requests):
        _check_length(f"request {i}", len(request.prefix_ids), 1, context_length)
        if request.max_new_tokens < 1:
            raise ValueError(f"request {i} asks for {request.max_new_tokens} new tokens: at least 1 is drawn")


def check_pairs(pairs: Sequence[Pair], endings: Sequence[TokenIds] | None, context_length: int) -> dict[Pair, TokenIds]:
    """The pairs that have endings, with them. Raises ValueError for what `Engine.score` cannot be asked."""
    for i, (prefix, continuation) in enumerate(pairs):
        _check_length(f"pair {i}", len(prefix), len(continuation), context_length)
    ends: dict[Pair, TokenIds] = {}
    for i, (pair, alike) in enumerate(zip(pairs, endings, strict=True) if endings is not None else ()):
        if alike and not pair[1]:
            raise ValueError(f"pair {i} has endings and no token that they could stand for")
        if ends.setdefault(pair, alike) != alike:
            raise ValueError(f"pair {i} has other endings than an equal pair before it")
    return {pair: alike for pair, alike in ends.items() if alike}


def _check_length(name: str, prefix: int, new: int, context_length: int) -> None:
    if prefix == 0:
        raise ValueError(f"{name} has an empty prefix")
    if prefix + new > context_length:
        raise ValueError(f"{name}: {prefix} prefix + {new} new tokens exceed the context of {context_length}")
