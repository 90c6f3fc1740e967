"""Does the update score tokens as the model does? Tried on a few tokens before a run begins.

TRL's trainer takes the model apart into its body and its output layer, which is not all there is to some architectures.
"""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.utils import add_fused_lm_head

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import FIELD, first_line
from backtrack_mrt.policy.hf.plain_engine import evaluating
from backtrack_mrt.policy.hf.trial import ordinary_tokens
from backtrack_mrt.training.packing import aligned_rows

_TOKENS = 8


def check_update(model: Any, name: str) -> None:
    """Raises UserError for an architecture that `PolicyTrainer` would train on something else than what it says."""
    weight = model.get_input_embeddings().weight
    ids = torch.tensor([ordinary_tokens(model, _TOKENS)], device=weight.device)
    rows = aligned_rows(ids, torch.ones_like(ids), _TOKENS - 1)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = vars(inner).get("forward")
    try:
        with torch.no_grad(), evaluating(model):
            plain = model(**rows.inputs(), use_cache=False).logits.float().log_softmax(-1)[0, :-1]
            add_fused_lm_head(inner)
            found = model(**rows.inputs(), shift_labels=rows.targets, fused_lm_head=True).log_probs[0, :-1]
        gap = float((found - plain.gather(1, ids[0, 1:, None])[:, 0]).abs().max())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # each architecture fails in its own way
        raise _refusal(model, name, f"{type(error).__name__}: {first_line(error)}") from error
    finally:
        if own is None:
            vars(inner).pop("forward", None)
        else:
            inner.forward = own
    if not gap <= (1e-3 if weight.dtype == torch.float32 and not hasattr(model.config, "quantization_config") else 0.2):
        raise _refusal(model, name, f"log-probabilities are off by {gap:.2g}")


def _refusal(model: Any, name: str, reason: str) -> UserError:
    told = f"its architecture {getattr(model.config, 'model_type', 'unknown')} cannot be trained by TRL ({reason})"
    return UserError(FIELD, name, told, "Take another model, or fit it with --algo star or sft.")
