"""Decoder layers of a packed update in compiled code (policy/hf/c/update.c): Llama-like ones in float32 on a CPU, of
which LoRA adapters alone are trained.

The adapters are merged into the weights for every pass, and what one product leaves is still in the processor's cache
when the next one reads it. The numbers are the modules' up to rounding. Whatever is not of that kind, the modules
compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, byref
from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from backtrack_mrt.policy.hf.compiled import code_for, is_plain, linears_of, norms_of, without_adapter
from backtrack_mrt.policy.hf.kernels import Adapted, Kept, RowTable, TrainedLayer, in_free_cores
from backtrack_mrt.policy.hf.lora import decoder_of
from backtrack_mrt.policy.hf.trial import ordinary_tokens
from backtrack_mrt.training.packing import IGNORED, Packed, pack, packed_attention
from backtrack_mrt.training.row_places import GroupedRows

_TOLERANCE = 1e-3  # of logits and gradients, relative to all of them together


class Adapter(NamedTuple):
    """A (r, in), B (out, r), and what their product is multiplied by."""

    A: Tensor
    B: Tensor
    scale: float


class Workshop:
    """The compiled functions, and the memory that they work in: shared by the layers of a model."""

    def __init__(self, code: CDLL) -> None:
        self.code = code
        self._room = torch.empty(0)

    def room(self, layer: TrainedLayer, rows: RowTable) -> int:
        """Where a pass may work."""
        if (size := self.code.layer_room(byref(layer), byref(rows))) > len(self._room):
            self._room = torch.empty(size)
        return self._room.data_ptr()


class CompiledLayer(nn.Module):
    """Comes before a decoder layer's own class."""

    workshop: Workshop

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(1, T, H) → (1, T, H)."""
        packed: Packed | None = kwargs.get("packed")
        if packed is None or torch.is_autocast_enabled("cpu") or not _trains_adapters_alone(self):
            y: Tensor = super().forward(hidden_states, *args, **kwargs)
            return y
        adapters = [adapter_of(module) for module in linears_of(self)]
        weights = [weight for adapter in adapters if adapter for weight in adapter[:2]]
        places = [place[0].contiguous() for place in kwargs["position_embeddings"]]
        compiled: Tensor = _Layer.apply(hidden_states, self, packed, places, adapters, *weights)  # type: ignore[no-untyped-call]
        return compiled


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: CompiledLayer,
        packed: Packed,
        places: list[Tensor],
        adapters: list[Adapter | None],
        *weights: Tensor,  # of the adapters: to these autograd brings their gradients
    ) -> Tensor:
        x = x.contiguous()
        trained, rows = _trained(layer, adapters), _rows(packed.grouped, places)
        heads, depth = trained.heads, trained.depth
        kept = [x, torch.empty_like(x)]
        sizes = (heads + 2 * trained.kv_heads) * depth, heads * depth, 2 * heads, 2 * trained.inner
        kept += [x.new_empty(x.shape[1], size) for size in sizes]
        y = torch.empty_like(x)
        with in_free_cores(layer.workshop.code):
            room = layer.workshop.room(trained, rows)
            layer.workshop.code.layer_forward(trained, rows, _kept(kept), y.data_ptr(), room)
        ctx.arguments = layer, packed, places, adapters
        ctx.save_for_backward(*kept, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        layer, packed, places, adapters = ctx.arguments
        trained, rows = _trained(layer, adapters), _rows(packed.grouped, places)
        d_y, kept = grads[0].contiguous(), ctx.saved_tensors[: len(Kept._fields_)]
        sizes = [
            (weight.numel(), weight.shape) for adapter in adapters if adapter for weight in (adapter.A, adapter.B.T)
        ]
        d_x, gradient = torch.empty_like(d_y), d_y.new_empty(sum(size for size, _ in sizes))
        with in_free_cores(layer.workshop.code):
            room = layer.workshop.room(trained, rows)
            layer.workshop.code.layer_backward(
                trained, rows, _kept(kept), *(each.data_ptr() for each in (d_y, d_x, gradient)), room
            )
        found = torch.split(gradient, [size for size, _ in sizes])
        d_weights = [each.view(shape) for each, (_, shape) in zip(found, sizes, strict=True)]
        d_weights[1::2] = [each.T for each in d_weights[1::2]]
        return d_x, None, None, None, None, *d_weights


def _trained(layer: Any, adapters: Sequence[Adapter | None]) -> TrainedLayer:
    """The layer as the compiled code knows it. It holds no memory."""
    linears, norms, attention = linears_of(layer), norms_of(layer), layer.self_attn
    depth, inner = attention.head_dim, without_adapter(linears[-1]).in_features
    heads, kv_heads = (without_adapter(linears[i]).out_features // depth for i in (0, 1))
    return TrainedLayer(
        (Adapted * len(linears))(*map(_adapted, linears, adapters)),
        *(norm and norm.weight.data_ptr() for norm in norms),
        *(norms[0].weight.numel(), inner, heads, kv_heads, depth),
        *(norms[0].variance_epsilon, attention.scaling),
    )


def _adapted(module: Any, adapter: Adapter | None) -> Adapted:
    base = without_adapter(module)
    bias = None if base.bias is None else base.bias.data_ptr()
    A, B, rank, scale = (None, None, 0, 0.0)
    if adapter:
        A, B, rank, scale = adapter.A.data_ptr(), adapter.B.data_ptr(), len(adapter.A), adapter.scale
    return Adapted(base.weight.data_ptr(), bias, A, B, base.in_features, base.out_features, rank, scale)


def _rows(rows: GroupedRows, places: Sequence[Tensor]) -> RowTable:
    arrays = (rows.first, rows.own, rows.count, rows.seen, rows.offsets, rows.extra, *places)
    return RowTable(len(rows.seen), len(rows.first) - 1, rows.longest, *(each.data_ptr() for each in arrays))


def _kept(tensors: Sequence[Tensor]) -> Kept:
    return Kept(*(each.data_ptr() for each in tensors))


def adapter_of(module: Any) -> Adapter | None:
    """The one that takes part in a linear layer's output."""
    if not isinstance(module, LoraLinear) or module.disable_adapters:
        return None
    name = module.active_adapters[0]
    if name not in module.lora_A:
        return None
    A: Any = module.lora_A[name]
    B: Any = module.lora_B[name]
    return Adapter(A.weight, B.weight, module.scaling[name])


def _trains_adapters_alone(layer: Any) -> bool:
    """Whether all that is trained are the adapters of the layer's linear layers, one each, without dropout."""
    linears = linears_of(layer)
    if not all(map(is_plain, linears)):
        return False
    adapted = [module for module in linears if isinstance(module, LoraLinear)]
    dropouts = [dropout for module in adapted for dropout in module.lora_dropout.values()]
    if any(len(m.active_adapters) != 1 for m in adapted) or not all(isinstance(d, nn.Identity) for d in dropouts):
        return False
    adapters = [weight for module in linears if (adapter := adapter_of(module)) for weight in (adapter.A, adapter.B)]
    trained = set(map(id, adapters))
    return all(weight.dtype == torch.float32 for weight in adapters) and all(
        id(weight) in trained for weight in layer.parameters() if weight.requires_grad
    )


def compile_layers(model: Any) -> CDLL | None:
    """Let the decoder layers of `model` compute packed rows in compiled code, which is returned, if there is some for
    them that gives their numbers and gradients on a few tokens."""
    decoder = decoder_of(model)
    code = code_for(decoder)
    if any(isinstance(module, CompiledLayer) for module in decoder.modules()):
        return code  # for an earlier trainer
    if code is None or not all(map(_trains_adapters_alone, decoder.model.layers)):
        return None
    workshop, plain, layers = Workshop(code), _tried(model), decoder.model.layers
    # Of the same name, by which libraries know a model's layers.
    kinds = {kind: type(kind.__name__, (CompiledLayer, kind), {}) for kind in map(type, layers)}
    for layer in layers:
        layer.__class__ = kinds[type(layer)]
        layer.workshop = workshop
    if all(
        float((one - other).norm()) <= _TOLERANCE * float(other.norm())
        for one, other in zip(_tried(model), plain, strict=True)
    ):
        return code
    for layer in layers:
        layer.__class__ = type(layer).__mro__[2]
    return None


def _tried(model: Any) -> tuple[Tensor, Tensor]:
    """The logits of a few packed tokens, and the gradient of what they say of the right ones."""
    ids = ordinary_tokens(model, 8)
    rows = pack([ids[:4]] * 2, [ids[4:], ids[5:]], model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.enable_grad(), packed_attention(model.config):
        logits = model(**rows.inputs(), use_cache=False).logits[0]
        loss = cross_entropy(logits, rows.targets, ignore_index=IGNORED)
        gradient = torch.autograd.grad(loss, weights, allow_unused=True)
    return logits.detach(), torch.cat([each.flatten() for each in gradient if each is not None])
