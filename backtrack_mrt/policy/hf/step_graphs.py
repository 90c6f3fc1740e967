"""Decoding steps as CUDA graphs.

A step of a small model is thousands of kernels of a few microseconds, which Python launches far more slowly than a GPU
runs them (docs/gpu.md). Steps of one shape are captured once and replayed: rows are rounded up to a multiple of ROWS,
lengths to one of SLOTS, and what pads a step writes to a row that nobody reads (`RowCache.spare`). A captured step
reads and writes fixed memory, so all of them are dropped when the cache gets other buffers. They share what is theirs,
the logits' place too: one step runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backtrack_mrt.policy.hf.kv_cache import RowCache, multiple

ROWS, SLOTS = 16, 128
DecodingStep = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(slots=True)
class _Shape:
    """Steps of one shape. inputs: tokens, rows and positions, (n,) each. logits (n, V): where the graph writes them."""

    inputs: tuple[Tensor, Tensor, Tensor]
    logits: Tensor | None = None
    graph: torch.cuda.CUDAGraph | None = None


class StepGraphs:
    """Runs `step` (tokens, rows and positions (n,), and a length) on rounded shapes: the first time as it is, then as a
    graph. Without a GPU, and for a model that cannot be captured, always as it is."""

    def __init__(self, step: DecodingStep, cache: RowCache) -> None:
        self._step, self._cache = step, cache
        self._captures = torch.cuda.is_available()
        self._stream = torch.cuda.Stream() if self._captures else None  # type: ignore[no-untyped-call]
        self.drop()

    def drop(self) -> None:
        """Forget all captured steps and free their memory."""
        self._shapes: dict[tuple[int, int], _Shape] = {}
        self._logits: Tensor | None = None  # (widest, V)
        self._generation = self._cache.generation
        self._pool: Any = torch.cuda.graph_pool_handle() if self._captures else None

    def __call__(self, tokens: Tensor, owner: Tensor, positions: Tensor, length: int) -> Tensor:
        """Logits (n, V) behind tokens (n,) of the rows `owner` (n,) at positions (n,) below `length`."""
        cache, rows = self._cache, len(tokens)
        width, length = multiple(rows, ROWS), multiple(length, SLOTS)
        cache.reserve(length)
        if cache.generation != self._generation:
            self.drop()
        shape = self._shapes.get((width, length))
        if new := shape is None:
            blank = torch.zeros(width, dtype=torch.int64, device=tokens.device)
            shape = self._shapes[width, length] = _Shape((blank, blank.clone(), blank.clone()))
        for held, given, padding in zip(shape.inputs, (tokens, owner, positions), (0, cache.spare, 0), strict=True):
            held[:rows] = given
            held[rows:] = padding
        if not new and shape.graph is None and self._captures:
            self._capture(shape, length)
        if shape.graph is None or shape.logits is None:
            logits = self._beside(lambda: self._step(*shape.inputs, length))
            if self._captures and (self._logits is None or len(self._logits) < width):
                self._logits = torch.empty_like(logits)
            return logits[:rows]
        shape.graph.replay()
        return shape.logits[:rows]

    def _capture(self, shape: _Shape, length: int) -> None:
        """Record one step; what it computes is nothing until it is replayed."""
        assert self._logits is not None
        graph, logits = torch.cuda.CUDAGraph(), self._logits[: len(shape.inputs[0])]

        def recorded() -> Tensor:
            torch.cuda.synchronize()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                return logits.copy_(self._step(*shape.inputs, length))
            finally:
                graph.capture_end()

        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # a copied weight would not outlive this call
        try:
            shape.logits = self._beside(recorded)
            shape.graph = graph
        except RuntimeError:
            self._captures = False
        finally:
            torch.set_autocast_cache_enabled(cached)

    def _beside(self, work: Callable[[], Tensor]) -> Tensor:
        """`work` on the stream that captures: what libraries keep for a stream is not made while it records."""
        if self._stream is None:
            return work()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result
