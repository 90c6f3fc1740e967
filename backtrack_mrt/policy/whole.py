"""The policy's weights whole, where a launcher cuts them up over the processes (FSDP 2, ZeRO-3).

A weight's pieces lie in all processes. So whatever gathers or sets weights here is done by all of them together, one
weight after the other: no process holds more than one whole weight beside what it keeps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def trained_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters that training changes, each whole, valid until the next one is asked for."""
    for name, parameter in _named(model):
        if parameter.requires_grad:
            piece: Any = parameter
            if hasattr(piece, "full_tensor"):  # FSDP 2: a DTensor
                yield name, piece.full_tensor()
            elif hasattr(piece, "ds_id"):
                with _gathered(piece):
                    yield name, piece.data
            else:
                yield name, piece.data


@torch.no_grad()
def set_weights(model: nn.Module, whole: Mapping[str, Tensor]) -> None:
    """Give the parameters that `whole` names these values."""
    for name, parameter in _named(model):
        if name in whole:
            piece: Any = parameter
            if hasattr(piece, "full_tensor"):
                from torch.distributed.tensor import distribute_tensor

                piece.copy_(distribute_tensor(whole[name], piece.device_mesh, piece.placements))
            elif hasattr(piece, "ds_id"):
                with _gathered(piece, modifier_rank=0):
                    piece.data.copy_(whole[name])
            else:
                piece.copy_(whole[name])


def own_piece(parameter: Any) -> Tensor:
    """What of a weight lies in this process."""
    if hasattr(parameter, "to_local"):
        return parameter.to_local()  # type: ignore[no-any-return]
    return parameter.ds_tensor if hasattr(parameter, "ds_id") else parameter  # type: ignore[no-any-return]


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters under the names that they had before layers were wrapped to be computed again on the way back."""
    for name, parameter in model.named_parameters():
        yield name.replace("_checkpoint_wrapped_module.", ""), parameter


def _gathered(parameter: Any, **settings: Any) -> AbstractContextManager[None]:
    """A weight of ZeRO-3, whole within the context."""
    import deepspeed

    found: AbstractContextManager[None] = deepspeed.zero.GatheredParameters([parameter], **settings)
    return found


def name_cut_layers(model: Any) -> None:
    """Let a model that FSDP has cut up be prepared once more, by the next trainer: accelerate looks for the decoder
    layers by the names of their classes, which FSDP has changed."""
    changed = {type(module).__name__ for module in model.modules() if type(module).__name__.startswith("FSDP")}
    if names := sorted(changed & {f"FSDP{name}" for name in getattr(model, "_no_split_modules", None) or ()}):
        model._no_split_modules = names


class WholeCopy:
    """A copy of `model`, made while that is whole: `refresh` brings what was trained.

    frozen: also the weights that are not trained. Without them only an adapter can be read from it.
    """

    def __init__(self, model: Any, *, frozen: bool = True) -> None:
        self._model = model
        left_out = [] if frozen else [p for p in model.parameters() if not p.requires_grad]
        empty = {id(p): nn.Parameter(p.data.to("meta"), requires_grad=False) for p in left_out}
        self.copy: Any = copy.deepcopy(model, empty)

    @torch.no_grad()
    def refresh(self) -> None:
        """By all processes together."""
        kept = dict(self.copy.named_parameters())
        for name, whole in trained_weights(self._model):
            kept[name].copy_(whole)
