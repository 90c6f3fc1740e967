"""LoRA adapters folded into the base weights for the time of an engine call, or written out for another program.

Unmerged adapters cost two more small matrix products in every linear layer and every decoding step. Here the merged
matrices live beside the base ones and only the weights' storage pointers are exchanged: entering and leaving costs
microseconds, the base weights are never written, and nobody outside the context ever sees merged weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


class MergedAdapter:
    """The merged weights of `model`'s active LoRA adapter. A model without plain LoRA layers is left as it is."""

    def __init__(self, model: nn.Module) -> None:
        self._layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLinear) and mergeable(m)]
        self._merged: list[Tensor] = []
        self._stale = False

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the context the layers compute with merged weights."""
        if not self._merged:
            self._merged = [merged_weight(layer) for layer in self._layers]
        elif self._stale:
            for layer, merged in zip(self._layers, self._merged, strict=True):
                merged.copy_(merged_weight(layer))
        self._stale = False
        weights = [layer.get_base_layer().weight for layer in self._layers]
        originals = [weight.data for weight in weights]
        try:
            for layer, weight, merged in zip(self._layers, weights, self._merged, strict=True):
                weight.data = merged
                layer.merged_adapters.extend(layer.active_adapters)
            yield
        finally:
            for layer, weight, original in zip(self._layers, weights, originals, strict=True):
                weight.data = original
                layer.merged_adapters.clear()

    @property
    def size(self) -> int:
        """Bytes that the merged weights take."""
        return sum(merged.nbytes for merged in self._merged)

    def renew(self) -> None:
        """The adapter has changed: merge it again, at the same place in memory."""
        self._stale = True

    def drop(self) -> None:
        """Forget the merged weights: the memory is wanted."""
        self._merged = []


def decoder_of(model: nn.Module) -> Any:
    """The causal language model without a PeftModel around it; the adapter's layers stay inside."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def mergeable(layer: Any) -> bool:
    """Plain LoRA on a float32 linear layer. Variants (DoRA, …), biases and quantised layers stay unmerged, and so do
    16-bit weights: an update smaller than half of a weight's last digit would be rounded away."""
    base = layer.get_base_layer()
    plain = type(base) is nn.Linear and base.weight.dtype == torch.float32
    return bool(plain and not layer.merged and not layer.lora_variant and not any(layer.lora_bias.values()))


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """The weight of a linear layer with its adapter, if it has one; a copy then."""
    base: Any = layer.get_base_layer() if isinstance(layer, LoraLinear) else layer
    weight: Tensor = base.weight.data
    if base is layer:
        return weight
    merged = weight.clone()
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            merged += layer.get_delta_weight(adapter).to(weight.dtype)
    return merged


class WeightsFolder:
    """Writes the adapter of `model` as it is now, or all weights where it has none. The folder lies in `parent` (None:
    among the temporary files) and goes with this object."""

    def __init__(self, model: Any, parent: Path | None = None) -> None:
        self._model = model
        self._folder = TemporaryDirectory(prefix="weights-", dir=parent)
        Path(self._folder.name).chmod(0o755)  # a server may be another user's

    @property
    def rank(self) -> int:
        """The adapter's rank r."""
        config = self._model.peft_config[self._model.active_adapter]
        assert isinstance(config, LoraConfig)
        return config.r

    def digest(self) -> str:
        """Of the weights as they are now: the same in all processes that have the same."""
        digest, weights = blake2b(digest_size=8), dict(self._model.named_parameters())
        if isinstance(self._model, PeftModel):
            weights = get_peft_model_state_dict(self._model, save_embedding_layers=False)
        for name, weight in weights.items():
            digest.update(name.encode())
            digest.update(weight.detach().contiguous().view(torch.uint8).cpu().numpy())
        return digest.hexdigest()

    def write(self, name: str) -> Path:
        """Its directory, of that name."""
        path = Path(self._folder.name) / name
        settings = {"save_embedding_layers": False} if isinstance(self._model, PeftModel) else {}
        self._model.save_pretrained(str(path), **settings)
        return path

    def delete(self, name: str) -> None:
        """What was written under that name."""
        shutil.rmtree(Path(self._folder.name) / name, ignore_errors=True)
