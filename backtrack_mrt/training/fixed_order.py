"""Sums in a fixed order. A GPU's kernels add what comes first first, so that two equal runs differ in their last bits,
and soon in their tokens. A CPU's have one order anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from backtrack_mrt.errors import RunError

_REFUSAL = "does not have a deterministic implementation"  # PyTorch's


@contextmanager
def in_fixed_order(wanted: bool) -> Iterator[None]:
    """Within the block a GPU sums in a fixed order, if that is `wanted`. Raises RunError where an operation has no such
    kernel. cuBLAS needs CUBLAS_WORKSPACE_CONFIG beside it (`runs.environment`)."""
    if not wanted or not torch.cuda.is_available():
        yield
        return
    memory: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nobody here reads what nobody has written
    try:
        yield
    except RuntimeError as error:
        operation, refused, _ = str(error).partition(_REFUSAL)
        if not refused:
            raise
        remedy = "Set training.deterministic to false: go on with --resume --accept-changes, or start anew."
        raise RunError(f"{operation.strip()} cannot sum in a fixed order on this GPU", remedy) from error
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before)
