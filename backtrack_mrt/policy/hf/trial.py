"""Does the cached decoding give what the model's own forward pass does? Tried on a few tokens, first of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import FIELD, first_line
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.types import FloatArray, Request, Sampling

_TOKENS = 12
_TOLERANCE = {torch.float32: 1e-3}  # of a log-probability; else, and for packed weights:
_ROUNDED = 0.2


def check_decoding(model: nn.Module, name: str) -> None:
    """Raises UserError for an architecture that the Hugging Face engine does not serve. `model` is as before then."""
    config: Any = model.config
    ids = tuple(range(1, 1 + _TOKENS)) if config.vocab_size > _TOKENS else (0,) * _TOKENS
    try:
        engine = HFEngine(model, max_rows=2)
        engine.generate([Request(ids[:4], 2, seed=0)], Sampling())
        found = [engine.score([ids[:cut]], [ids[cut:]])[0] for cut in (3, 6)]  # the second one branches off a row
        engine.close()
        expected = _plain_scores(model, ids)
    except torch.OutOfMemoryError:
        raise
    except UserError:
        raise
    except Exception as error:  # each architecture fails in its own way
        raise _refusal(name, config, f"{type(error).__name__}: {first_line(error)}") from error
    dtype = model.get_input_embeddings().weight.dtype  # type: ignore[operator]
    tolerance = _ROUNDED if hasattr(config, "quantization_config") else _TOLERANCE.get(dtype, _ROUNDED)
    worst = max(float(np.abs(scores - expected[-len(scores) :]).max()) for scores in found)
    if not worst <= tolerance:  # also if it is NaN
        raise _refusal(name, config, f"log-probabilities are off by {worst:.2g}")


def _plain_scores(model: nn.Module, ids: tuple[int, ...]) -> FloatArray:
    """Log-probabilities of the ids after the first, by one ordinary forward pass."""
    training = [module for module in model.modules() if module.training]
    device = next(model.parameters()).device
    tokens = torch.tensor([ids], device=device)
    try:
        model.eval()
        with torch.inference_mode():
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    finally:
        for module in training:
            module.training = True
    scores: FloatArray = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0].double().cpu().numpy()
    return scores


def _refusal(name: str, config: object, reason: str) -> UserError:
    kind = getattr(config, "model_type", "unknown")
    told = f"the cached decoding does not serve its architecture {kind} ({reason})"
    return UserError(FIELD, name, told, "Take a model like Llama or Qwen, or sample with --engine.type vllm.")
