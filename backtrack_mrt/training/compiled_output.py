"""The output layer of a packed update in compiled code (policy/hf/c/output.c): a frozen one, in float32 on a CPU.

Stands in for TRL's (`add_fused_lm_head`), which it is called like. Only tokens with a target are computed, and the
gradient by their hidden states comes with the way forward: two products with the weights instead of three.
"""

from __future__ import annotations

from ctypes import CDLL, byref
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from trl.trainer.utils import FusedCausalLMOutput

from backtrack_mrt.policy.hf.compiled import code_for
from backtrack_mrt.policy.hf.kernels import AskedTokens, Output, in_free_cores
from backtrack_mrt.training.packing import IGNORED

_TOLERANCE = 1e-3  # relative to all log-probabilities and gradients together


class CompiledOutput:
    """`layer` in compiled code, its logits divided by `temperature`. Holds the memory that it works in."""

    def __init__(self, layer: nn.Linear, code: CDLL, temperature: float) -> None:
        self.layer, self.code, self.temperature = layer, code, temperature
        self._room = torch.empty(0)

    def logprobs_and_entropies(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Of the tokens whose hidden states (T, H) and targets (T,) these are, 0 where the target is IGNORED. The
        entropies have no gradient."""
        found: tuple[Tensor, Tensor] = _Asked.apply(hidden, targets, self)  # type: ignore[no-untyped-call]
        return found

    def ask(
        self, hidden: Tensor, rows: Tensor, targets: Tensor, direction: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the targets (n,) of these rows of `hidden`, chances of all other tokens together, and
        entropies, all (n,). direction (n, H): there the gradients of the first by `hidden` are written, divided by the
        second."""
        logit, largest, total, weighed = hidden.new_empty(4, len(rows))
        weight = self.layer.weight
        output = Output(weight.data_ptr(), *weight.shape, 1 / self.temperature)
        asked = AskedTokens(
            *(each.data_ptr() for each in (hidden, rows, targets)),
            len(rows),
            *(each.data_ptr() for each in (logit, largest, total, weighed)),
            None if direction is None else direction.data_ptr(),
        )
        with in_free_cores(self.code):
            if (size := self.code.output_room(byref(output))) > len(self._room):
                self._room = torch.empty(size)
            self.code.ask_output(byref(output), byref(asked), self._room.data_ptr())
        ahead = logit - (largest + total.log())  # of all others together
        logprobs, others = logsigmoid(ahead), torch.sigmoid(-ahead)
        among_others = total.log() - weighed / total
        return logprobs, others, others * (among_others - logsigmoid(-ahead)) - logprobs.exp() * logprobs


class _Asked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, output: CompiledOutput) -> tuple[Tensor, Tensor]:
        rows = (targets != IGNORED).nonzero().flatten()
        direction = hidden.new_empty(len(rows), hidden.shape[1]) if ctx.needs_input_grad[0] else None
        logprobs, entropies = hidden.new_zeros(2, len(hidden))
        logprobs[rows], others, entropies[rows] = output.ask(hidden.contiguous(), rows, targets[rows], direction)
        ctx.mark_non_differentiable(entropies)
        ctx.save_for_backward(rows, others, direction)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        rows, others, direction = ctx.saved_tensors
        d_hidden = direction.new_zeros(len(grads[0]), direction.shape[1])
        d_hidden[rows] = (grads[0][rows] * others)[:, None] * direction
        return d_hidden, None, None


def compile_output(decoder: Any, temperature: float) -> bool:
    """Let `decoder`, called with packed rows, `shift_labels` and `fused_lm_head=True`, answer as with TRL's output
    layer, but in compiled code. False, and nothing is changed, if there is none that gives its layer's numbers."""
    code, layer = code_for(decoder), decoder.get_output_embeddings()
    if code is None or type(layer) is not nn.Linear or layer.weight.requires_grad or layer.bias is not None:
        return False
    output = CompiledOutput(layer, code, temperature)
    if not _right(output):
        return False
    before = getattr(decoder.forward, "before", decoder.forward)  # an earlier trainer's goes

    @wraps(before)
    def forward(*args: Any, **given: Any) -> Any:
        if not given.get("fused_lm_head") or "packed" not in given or torch.is_autocast_enabled("cpu"):
            return before(*args, **given)
        targets = given.pop("shift_labels")
        del given["fused_lm_head"]
        hidden = decoder.base_model(*args, use_cache=False, **given).last_hidden_state
        logprobs, entropies = output.logprobs_and_entropies(hidden[0], targets[0])
        return FusedCausalLMOutput(log_probs=logprobs[None], entropy=entropies[None], label_mask=targets != IGNORED)

    forward.before = before  # type: ignore[attr-defined]
    decoder.forward = forward
    return True


def _right(output: CompiledOutput) -> bool:
    """Whether it gives the layer's numbers and gradients for a few hidden states."""
    chance = torch.Generator().manual_seed(0)
    vocabulary, width = output.layer.weight.shape
    hidden = torch.randn(8, width, generator=chance).requires_grad_()
    targets = torch.randint(vocabulary, (8,), generator=chance)
    with torch.enable_grad():
        ours = output.logprobs_and_entropies(hidden, targets)[0]
        theirs = (output.layer(hidden) / output.temperature).log_softmax(-1)[range(8), targets]
    found = [torch.cat([each.detach(), *torch.autograd.grad(each.sum(), hidden)[0]]) for each in (ours, theirs)]
    return float((found[0] - found[1]).norm()) <= _TOLERANCE * float(found[1].norm())
