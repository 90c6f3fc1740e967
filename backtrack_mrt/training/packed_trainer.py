"""Training without padding, in compiled code where there is some.

`PackedTrainer` comes between `SafeTrainer` and TRL's trainers. Where rows cannot be packed, losses are of padded ones.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

from backtrack_mrt.policy.hf.kernels import in_free_cores
from backtrack_mrt.policy.hf.lora import decoder_of
from backtrack_mrt.runs.checkpoints import Checkpoint
from backtrack_mrt.runs.processes import sharding
from backtrack_mrt.training.compiled_layers import compile_layers
from backtrack_mrt.training.compiled_output import compile_output
from backtrack_mrt.training.fused_lora import fuse_adapters
from backtrack_mrt.training.packing import packed_attention
from backtrack_mrt.training.safety import SafeTrainer
from backtrack_mrt.training.trainer_setup import Setup


class PackedTrainer(SafeTrainer):
    """packs: whether the model takes the packed rows of `packing`. fuses: whether it has, for them, an output layer in
    compiled code, that gives log-probabilities without logits (`compile_output`)."""

    def __init__(self, setup: Setup, **settings: Any) -> None:
        super().__init__(setup, **settings)
        self.packs = setup.packs
        if sharding() != "ZeRO-3":  # which brings a weight together for its own module only
            fuse_adapters(setup.model)
        compiles = sharding() is None and self.packs and setup.config.engine.compiled
        self._compiled = compile_layers(setup.model) if compiles else None
        temperature = getattr(self, "temperature", 1.0)  # TRL's GRPOTrainer has one
        self.fuses = compiles and compile_output(decoder_of(setup.model), temperature)
        self._backward = ExitStack()  # around what follows a loss

    def fit(self, checkpoint: Checkpoint | None = None) -> None:
        """See `SafeTrainer.fit`."""
        with packed_attention(self.setup.model.config) if self.packs else nullcontext():
            super().fit(checkpoint)

    def training_step(self, *args: Any, **settings: Any) -> torch.Tensor:
        """See `SafeTrainer.training_step`."""
        with self._backward:
            return super().training_step(*args, **settings)

    def in_free_cores(self) -> AbstractContextManager[None]:
        """Around forward passes."""
        return in_free_cores(self._compiled)

    def backward_in_free_cores(self) -> None:
        """To be called where the loss of a micro-batch is computed: what follows is its way back."""
        self._backward.enter_context(self.in_free_cores())
