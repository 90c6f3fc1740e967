"""A decoder's whole forward pass as one call of compiled code, for Llama-like models in float32 on a CPU.

The weights, with the LoRA adapter merged in, are copied into the order in which the code reads them; the model itself
is never touched. Its numbers are the modules' up to rounding (`trial` compares them at the start), and the same in any
batch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, byref, c_void_p
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from backtrack_mrt.policy.hf.kernels import DecoderLayer, Linear, Model, Pass, in_free_cores, library
from backtrack_mrt.policy.hf.kv_cache import RowCache, multiple
from backtrack_mrt.policy.hf.lora import mergeable, merged_weight
from backtrack_mrt.policy.hf.packed_forward import Layout

_STEADY = ("default", "linear", "llama3", "yarn")  # kinds of positions that do not depend on the pass
_TABLE = 512  # positions are tabled in multiples of this
_SERVED = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


class CompiledDecoder:
    """`decoder` in compiled code. adapted: with its LoRA adapter, else as the base."""

    def __init__(self, decoder: Any, code: CDLL, *, adapted: bool) -> None:
        self._decoder, self.code, self._adapted = decoder, code, adapted
        attention = decoder.model.layers[0].self_attn
        self.layers, self.depth = len(decoder.model.layers), attention.head_dim
        self.kv_heads = decoder.config.num_key_value_heads
        self.block: int = code.lanes()  # slots of the cache that are kept together
        self._held: list[Any] = []  # what the pointers in `_model` point to
        self._model: Model | None = None
        self._room = torch.empty(0)
        self._table = [torch.empty(0), torch.empty(0)]  # cos and sin of the first positions

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        layout: Layout,
        cache: RowCache,
        shared: tuple[Tensor, Tensor],
        keep: Tensor | None,
    ) -> Tensor:
        """Logits (K, V) at the places `keep` (K,) of T packed tokens, at all of them by default. shared: for each row
        of the cache, the row that holds its beginning, too, and how many tokens of it (`RowCache.beginnings`)."""
        model = self._packed()
        inner = self._decoder.model
        hidden: Tensor = inner.embed_tokens(tokens)
        cos, sin = self._turned(positions, hidden)
        cache.open(self.layers, self.kv_heads, self.depth, like=hidden)
        kept = torch.arange(len(tokens)) if keep is None else keep
        logits = hidden.new_empty(len(kept), model.head.outputs)
        places = (layout.owner, layout.slots, layout.seen, layout.offsets, layout.extra, kept, *shared, cos, sin)
        pointers = (c_void_p * self.layers)(*(buffer.data_ptr() for buffer in cache.buffers))
        run = Pass(
            len(tokens),
            len(kept),
            *(cache.buffers[0].shape[1], cache.buffers[0].shape[3] * self.block),
            *(place.data_ptr() for place in places),
            pointers,
        )
        with in_free_cores(self.code):
            if (size := self.code.room(byref(model), byref(run))) > len(self._room):
                self._room = hidden.new_empty(size)
            self.code.forward(byref(model), byref(run), hidden.data_ptr(), logits.data_ptr(), self._room.data_ptr())
        return logits

    def _turned(self, positions: Tensor, like: Tensor) -> list[Tensor]:
        """cos and sin (T, depth) of the positions (T,): out of a table, unless they depend on the longest of a pass."""
        rotary = self._decoder.model.rotary_emb
        if rotary.rope_type not in _STEADY:
            return [each[0].contiguous() for each in rotary(like[None], positions[None])]
        if (last := int(positions.max())) >= len(self._table[0]):
            several = torch.arange(multiple(last + 1, _TABLE))
            self._table = [each[0] for each in rotary(like[None], several[None])]
        return [each[positions] for each in self._table]

    def drop(self) -> None:
        """Forget the copied weights: they have changed, or the memory is wanted."""
        self._held, self._model, self._room = [], None, torch.empty(0)

    def _packed(self) -> Model:
        """The weights as the code reads them, copied at the first call."""
        if self._model is None:
            inner, config = self._decoder.model, self._decoder.config
            layers = (DecoderLayer * self.layers)(*map(self._layer, inner.layers))
            self._held.append(layers)
            self._model = Model(
                self.layers,
                config.hidden_size,
                config.num_attention_heads,
                self.kv_heads,
                self.depth,
                config.rms_norm_eps,
                inner.layers[0].self_attn.scaling,
                layers,
                self._vector(inner.norm.weight),
                self._linear([self._decoder.lm_head]),
            )
        return self._model

    def _layer(self, layer: Any) -> DecoderLayer:
        attention, mlp = layer.self_attn, layer.mlp
        return DecoderLayer(
            self._linear([attention.q_proj, attention.k_proj, attention.v_proj]),
            self._linear([attention.o_proj]),
            self._linear([mlp.gate_proj, mlp.up_proj]),
            self._linear([mlp.down_proj]),
            *(self._vector(norm and norm.weight) for norm in norms_of(layer)),
        )

    def _linear(self, modules: Sequence[Any]) -> Linear:
        """Layers that read the same input, as one: their outputs side by side, in panels (n, inputs, panel)."""
        bases = [without_adapter(module) for module in modules]
        weight = torch.cat(
            [merged_weight(m) if self._adapted else b.weight for m, b in zip(modules, bases, strict=True)]
        )
        outputs, inputs = weight.shape
        panel = 2 * self.block
        filled = weight.new_zeros(-(-outputs // panel) * panel, inputs)
        filled[:outputs] = weight
        bias = None
        if any(base.bias is not None for base in bases):
            bias = weight.new_zeros(len(filled))
            parts = [base.weight.new_zeros(len(base.weight)) if base.bias is None else base.bias for base in bases]
            bias[:outputs] = torch.cat(parts)
        panels = filled.view(-1, panel, inputs).transpose(1, 2)
        return Linear(self._vector(panels), self._vector(bias), inputs, outputs)

    def _vector(self, values: Tensor | None) -> int | None:
        """Where the numbers are; they stay there."""
        if values is None:
            return None
        self._held.append(values.detach().contiguous())
        return int(self._held[-1].data_ptr())


def code_for(decoder: Any) -> CDLL | None:
    """The compiled functions, if they compute what the model does."""
    if type(decoder) not in _SERVED or decoder.config.hidden_act != "silu":
        return None
    inner, code = decoder.model, None
    linears = [module for layer in inner.layers for module in linears_of(layer)]
    norms = [inner.norm, *(norm for layer in inner.layers for norm in norms_of(layer) if norm is not None)]
    if (
        type(inner.embed_tokens) is nn.Embedding
        and all(is_plain(module) for module in (*linears, decoder.lm_head))
        and all(_on_cpu(module.weight) for module in (inner.embed_tokens, *norms))
    ):
        code = library()
    shape = (decoder.config.hidden_size, decoder.config.intermediate_size, inner.layers[0].self_attn.head_dim)
    return code if code and not any(n % code.lanes() for n in shape) else None


def linears_of(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    ]


def norms_of(layer: Any) -> tuple[Any, ...]:
    """The last two are Qwen3's; None elsewhere."""
    heads = (getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm"))
    return (layer.input_layernorm, layer.post_attention_layernorm, *heads)


def without_adapter(module: Any) -> Any:
    """The linear layer without a LoRA adapter around it."""
    return module.get_base_layer() if isinstance(module, LoraLinear) else module


def is_plain(module: Any) -> bool:
    """Whether all that the module does is a product with a matrix."""
    base = without_adapter(module)
    around = mergeable(module) if isinstance(module, LoraLinear) else True
    return type(base) is nn.Linear and around and _on_cpu(base.weight)


def _on_cpu(weight: Tensor) -> bool:
    """Also: whole, not the share that one of several processes holds."""
    return type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
