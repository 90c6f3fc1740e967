"""Does the update score tokens as the model does? Tried on a few tokens before a run begins.

TRL's trainer takes the model apart into its body and its output layer, which is not all there is to some architectures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.trainer.utils import add_fused_lm_head

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import FIELD, first_line
from backtrack_mrt.policy.hf.arithmetic import evaluating
from backtrack_mrt.policy.hf.lora import decoder_of
from backtrack_mrt.policy.hf.trial import ordinary_tokens, too_far
from backtrack_mrt.training.packing import aligned_rows

_TOKENS = 8


def check_update(model: Any, name: str) -> None:
    """Raises UserError for an architecture that `PolicyTrainer` would train on something else than what it says."""
    tokens = ordinary_tokens(model, _TOKENS)
    ids = torch.tensor([tokens], device=model.get_input_embeddings().weight.device)
    rows = aligned_rows(ids, torch.ones_like(ids), _TOKENS - 1)
    try:
        with torch.no_grad(), evaluating(model), _fused_head(decoder_of(model)):
            found = model(**rows.inputs(), shift_labels=rows.targets, fused_lm_head=True).log_probs[0, :-1]
        reason = too_far(model, tokens, found.double().cpu().numpy())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # each architecture fails in its own way
        reason = f"{type(error).__name__}: {first_line(error)}"
    if reason is not None:
        kind = getattr(model.config, "model_type", "unknown")
        told = f"its architecture {kind} cannot be trained by TRL ({reason})"
        raise UserError(FIELD, name, told, "Take another model, or fit it with --algo star or sft.")


@contextmanager
def _fused_head(decoder: Any) -> Iterator[None]:
    """TRL's output layer, which it puts in place of the method `forward`."""
    own = vars(decoder).get("forward")
    try:
        add_fused_lm_head(decoder)
        yield
    finally:
        if own is None:
            vars(decoder).pop("forward", None)
        else:
            decoder.forward = own
