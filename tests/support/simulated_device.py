"""A device that is none: tensors that say they are elsewhere and refuse to meet others, as those of a GPU do.

The numbers are computed on the CPU. What torch allows across devices is allowed: copies, numbers (tensors without
dimensions), and indices on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")  # the one that autograd serves without a driver
_COPIES = {torch.ops.aten._to_copy, torch.ops.aten.copy_}
_INDEXED = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_}


class Placed(Tensor):
    """On the simulated device; `held` has the numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Placed:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, dtype=held.dtype, device=DEVICE)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class _Operations(TorchDispatchMode):
    """Makes new tensors on the device where they are wanted there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """What is no operation of a tensor: `torch.tensor` would make one without numbers, `tolist` asks for memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return func(*args, **kwargs | {"device": None}).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], Placed):
            return args[0].held.tolist()
        return func(*args, **kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, Placed)]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, Placed) and tensor.dim()]
    operation = func.overloadpacket
    mixes = operation in _COPIES or (operation in _INDEXED and isinstance(args[0], Placed))
    if here and elsewhere and not mixes:
        raise RuntimeError(f"{operation}: tensors on two devices: {[(tuple(t.shape), t.device) for t in tensors]}")
    target = kwargs.get("device")
    placed = bool(here) if target is None else torch.device(target) == DEVICE
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    found = func(*tree_map_only(Placed, _held, args), **tree_map_only(Placed, _held, kwargs))
    if func._schema.is_mutable and args and isinstance(found, Tensor):
        return args[0]
    return tree_map_only(Tensor, Placed, found) if placed else found


def _held(tensor: Placed) -> Tensor:
    return tensor.held


def placed(tensor: Tensor) -> Placed:
    """The same numbers on the device."""
    return Placed(tensor.detach())


def place(model: nn.Module) -> None:
    """Move a model there, in place; the memory stays shared."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(placed(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = placed(buffer)


@contextmanager
def simulated_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """While it is there."""
    with monkeypatch.context() as patched, _Literals(), _Operations():
        patched.setattr(torch, "is_autocast_enabled", lambda *_: False)  # it knows no such device
        yield DEVICE
