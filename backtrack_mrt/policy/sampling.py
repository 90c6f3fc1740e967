"""Drawing tokens with counter-based randomness: the uniform of a row at step t is a hash of (seed, t).

A row's tokens therefore depend on its seed and its logits only, never on the other rows of the batch, on the order of
calls or on a global generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

import torch
from torch import Tensor

from backtrack_mrt.errors import Collapsed
from backtrack_mrt.types import Sampling

BLOCK = 256  # tokens of a wide vocabulary whose probabilities are summed before one of them is looked for
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniforms(seeds: Sequence[int], steps: int, device: torch.device | str = "cpu") -> Tensor:
    """Uniforms in [0, 1) for every row and step, shape (len(seeds), steps), float64."""
    rows = torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=device)
    counter = torch.arange(1, steps + 1, dtype=torch.int64, device=device)
    # The seed is hashed before the counter is added, or neighbouring seeds would give shifted copies of one stream.
    bits = _splitmix64(_splitmix64(rows)[:, None] + counter * _signed(_GOLDEN))
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token per row from logits (n, V) and uniforms (n,) by the inverse CDF; greedy at temperature 0.

    Returns tokens (n,) and their logprobs (n,), which are those of the whole distribution at the temperature (at 1 when
    greedy), even where `top_p` truncates what is drawn from. Logits that are not finite give some token, with the
    logprob NaN: see `check_drawn`.
    """
    logprobs = torch.log_softmax(logits.float() / (sampling.temperature or 1.0), dim=-1)
    if sampling.temperature == 0:
        tokens = logprobs.argmax(dim=-1)
    else:
        probs = logprobs.exp()
        if sampling.top_p < 1:
            probs = _nucleus(probs, sampling.top_p)
        tokens = _inverse_cdf(probs, uniform).clamp(max=probs.shape[-1] - 1)  # of NaN all is beyond the end
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def check_drawn(logprobs: Iterable[float]) -> None:
    """Raises Collapsed if a drawn token has no probability: finite weights can give logits that are not. Asked once for
    all of a call's tokens, since to look at every step's would hold up a GPU."""
    if any(map(isnan, logprobs)):
        remedy = "Lower training.learning_rate, or take model.dtype float32."
        raise Collapsed("the policy's logits are not finite: no token can be drawn from them", remedy)


def _inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first index whose CDF exceeds `uniform` · the sum of all, so that a token of probability 0 is never drawn.

    In a wide vocabulary the blocks' sums come first and one block's CDF then: a running sum over 49,152 tokens is a
    fifth of SmolLM2's generation.
    """
    rows, tokens = probs.shape
    if tokens <= 4 * BLOCK:
        cdf = probs.cumsum(-1, dtype=torch.float64)
        return torch.searchsorted(cdf, uniform[:, None] * cdf[:, -1:], right=True).squeeze(-1)
    whole = tokens // BLOCK * BLOCK
    sums = torch.cat([probs[:, :whole].reshape(rows, -1, BLOCK).sum(-1), probs[:, whole:].sum(-1, keepdim=True)], dim=1)
    cdf = sums.cumsum(-1, dtype=torch.float64)
    target = uniform[:, None] * cdf[:, -1:]
    block = torch.searchsorted(cdf, target, right=True).clamp(max=sums.shape[1] - 1)
    places = block * BLOCK + torch.arange(BLOCK, device=probs.device)
    inside = (
        probs.gather(1, places.clamp(max=tokens - 1)).masked_fill(places >= tokens, 0).cumsum(-1, dtype=torch.float64)
    )
    rest = target - (cdf - sums).gather(1, block)
    rest = rest.minimum(inside[:, -1:].nextafter(torch.zeros_like(rest)))  # rounding must not lead beyond the block
    return places.gather(1, torch.searchsorted(inside, rest, right=True).clamp(max=BLOCK - 1)).squeeze(-1)


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """`probs` (n, V) with all but the smallest set of most likely tokens that holds at least `top_p` set to 0."""
    ranked, order = probs.sort(dim=-1, descending=True)
    before = ranked.cumsum(dim=-1) - ranked
    return torch.zeros_like(probs).scatter(-1, order, ranked.masked_fill(before >= top_p, 0.0))


def _splitmix64(state: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64 (arithmetic wraps around, as the hash wants)."""
    state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
    return state ^ _shift_right(state, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: int64 has only the arithmetic one."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Any integer modulo 2^64, as a signed 64-bit one."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
