"""The arithmetic of the update, for what samples from the module that is trained.

In bfloat16 the trainer computes under autocast: products in bfloat16, norms, softmax and adapters in float32. An engine
that left that out would sample another policy than the one that is updated.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
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


def is_exact(model: Any) -> bool:
    """Whether its logprobs do not depend on how rows are batched and padded, up to 1e-5: in float32 only, as measured
    (docs/engines.md)."""
    return bool(model.dtype == torch.float32)
