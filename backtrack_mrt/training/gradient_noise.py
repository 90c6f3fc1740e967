"""How much of an update's gradient is signal and how much is noise, told by the gradients of its micro-batches.

The gradient g of an update is the sum of K parts g_1 … g_K, each from rows that share no problem with the others. Were
the update drawn anew, g would scatter around its mean by

    noise²  = K/(K−1) · (Σ|g_k|² − |g|²/K)        signal² = |g|² − noise²

Both are without bias if the parts are alike; signal² of one update may be negative, so ratios are made of means over
many. A part is known when its backward pass is done: what the sum has become less what it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch


class GradientNoise:
    """Looks at the summed gradients of `parameters` after each micro-batch. together: micro-batches that may share a
    problem, and so count as one part. `seconds`: what it has cost in the update under way."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], together: int = 1) -> None:
        self.parameters, self.together = parameters, together
        self._forget()

    def _forget(self) -> None:
        self._micro_batches = self._parts = 0
        self._before: list[torch.Tensor] = []
        self._squares = self._total = 0.0  # Σ|g_k|² and |g|²
        self.seconds = 0.0

    @torch.no_grad()
    def see(self) -> None:
        """A micro-batch's backward pass is done."""
        start = time.perf_counter()
        self._micro_batches += 1
        if self._micro_batches % self.together == 0:
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            part = torch._foreach_sub(grads, self._before) if self._before else grads
            self._squares += _square(part)
            self._total = _square(grads)
            self._before = [grad.clone() for grad in grads]
            self._parts += 1
        self.seconds += time.perf_counter() - start

    def taken(self) -> dict[str, float]:
        """`gradient/signal` and `gradient/noise`, both squared, of the update that is over; nothing if it had fewer
        than two parts."""
        k, squares, total = self._parts, self._squares, self._total
        rest = self._micro_batches % self.together
        self._forget()
        if k < 2 or rest:
            return {}
        noise = k / (k - 1) * (squares - total / k)
        return {"gradient/signal": total - noise, "gradient/noise": noise}


def parts_together(group_size: int, micro_batch_size: int) -> int:
    """Micro-batches after which rows of a new problem begin, where the rows of one follow each other."""
    return math.lcm(group_size, micro_batch_size) // micro_batch_size


def _square(tensors: tuple[torch.Tensor, ...] | list[torch.Tensor]) -> float:
    """|t|² of all of them together."""
    return float(torch.stack(torch._foreach_norm(tensors)).double().square().sum())
