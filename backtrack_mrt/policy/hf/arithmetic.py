"""How a model that is trained is asked: with the arithmetic of its update, in evaluation mode, by another attention.

In bfloat16 the trainer computes under autocast: products in bfloat16, norms, softmax and adapters in float32. An engine
that left that out would sample another policy than the one that is updated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def as_trained(model: Any) -> AbstractContextManager[Any]:
    """Within the context `model` computes as in its update."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16)


def any_length() -> AbstractContextManager[Any]:
    """Within the context attention takes any length at once. cuDNN plans for every new shape: that took nine tenths of
    a rollout in bfloat16 (docs/gpu.md)."""
    if not torch.cuda.is_available():
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode; on exit every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def attending(config: Any, implementation: str) -> Iterator[None]:
    """Within the context the model of that config attends by another function, known to transformers by its name."""
    before, config._attn_implementation = config._attn_implementation, implementation
    try:
        yield
    finally:
        config._attn_implementation = before


def step_at(logits: Tensor, dtype: torch.dtype) -> float:
    """The step between neighbouring numbers of a model's type at the size of the largest of its logits: .13 for 16 in
    bfloat16, whatever type they were turned into. By as much kernels differ that are both right."""
    return torch.finfo(dtype).eps * float(logits.abs().max())


def is_exact(model: Any) -> bool:
    """Whether its logprobs do not depend on how rows are batched and padded, up to 1e-5: in float32 only, as measured
    (docs/engines.md)."""
    return bool(model.dtype == torch.float32)
