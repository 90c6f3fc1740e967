"""LoRA's two matrices in one autograd function: y = W x + b + s·B A x.

peft writes the adapter's product, scales it and adds it to the layer's, each in a pass over the output of its own, and
the backward pass goes the same way back. Here they are accumulated into the matrix products themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


class FusedLora(LoraLinear):
    """A peft layer that computes as one function where it is a plain one; else as peft does."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in) → (…, out)."""
        plain = not (args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1)
        if plain and (name := self.active_adapters[0]) in self.lora_A and not self.lora_variant:
            base, A, B = self.get_base_layer(), self.lora_A[name].weight, self.lora_B[name].weight
            alike = x.dtype == base.weight.dtype == A.dtype and not torch.is_autocast_enabled(x.device.type)
            if alike and isinstance(self.lora_dropout[name], nn.Identity):
                y: Tensor = _Lora.apply(x, base.weight, base.bias, A, B, self.scaling[name])  # type: ignore[no-untyped-call]
                return y
        return super().forward(x, *args, **kwargs)


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, s: float) -> Tensor:
        flat = x.flatten(0, -2)
        inner = flat @ A.T
        y = flat @ W.T if b is None else torch.addmm(b, flat, W.T)
        y.addmm_(inner, B.T, alpha=s)
        ctx.save_for_backward(flat, inner, W, A, B)
        ctx.scale, ctx.shape = s, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, W, A, B = ctx.saved_tensors
        g = grads[0].flatten(0, -2)
        g_inner = (g @ B).mul_(ctx.scale)
        g_x = (g @ W).addmm_(g_inner, A).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return g_x, None, None, g_inner.T @ flat, (g.T @ inner).mul_(ctx.scale), None


def fuse_adapters(model: nn.Module) -> None:
    """Let the plain LoRA layers of `model` compute by `FusedLora`. Layers over frozen, unquantised weights only."""
    for module in model.modules():
        if type(module) is LoraLinear:
            base = module.get_base_layer()
            if type(base) is nn.Linear and not any(p.requires_grad for p in base.parameters()):
                module.__class__ = FusedLora
