"""Which engine gives what the model's own forward pass does? Tried on a few tokens, first of all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import FIELD, first_line
from backtrack_mrt.policy.hf.arithmetic import evaluating, step_at
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.plain_engine import PlainEngine
from backtrack_mrt.runs.processes import tell
from backtrack_mrt.types import FloatArray, Request, Sampling

_TOKENS = 12
_ROUNDINGS = 3  # steps between neighbouring logits that right log-probabilities are off by, at most
Maker = Callable[..., HFEngine | PlainEngine]  # a model, and named what `HFEngine` is told


def serving_engine(model: nn.Module, name: str, compiled: bool = True) -> Maker:
    """The fastest engine that is exact for the model; `compiled` code is tried first if it may be. Raises UserError for
    an architecture that none serves. `model` is as before then."""
    kind = getattr(model.config, "model_type", "unknown")
    by_modules = partial(HFEngine, compiled=False)
    first: Maker = HFEngine if compiled else by_modules
    if (cached := _objection(first, model)) is None:
        return first
    if compiled and _objection(by_modules, model) is None:
        tell(f"{name} ({kind}) is decoded by its modules: in compiled code {cached}", file=sys.stderr)
        return by_modules
    if (plain := _objection(PlainEngine, model)) is None:
        tell(f"{name} ({kind}) is sampled as transformers does, which is slower ({cached}); try --engine.type vllm")
        return PlainEngine
    reason = f"its architecture {kind} is not served in this process ({plain})"
    raise UserError(FIELD, name, reason, "Take a causal language model, or sample with --engine.type vllm.")


def _objection(kind: Maker, model: nn.Module) -> str | None:
    """Why an engine does not serve the model; None if it does."""
    ids = ordinary_tokens(model, _TOKENS)
    try:
        engine = kind(model, max_rows=2)
        drawn = engine.generate([Request(ids[:4], 4, seed=0)], Sampling())[0]
        found = [(ids, engine.score([ids[:cut]], [ids[cut:]])[0]) for cut in (3, 6)]  # the second branches off a row
        engine.close()
        found.append(((*ids[:4], *drawn.token_ids), np.array(drawn.logprobs)))
        return next((objection for row, scores in found if (objection := too_far(model, row, scores))), None)
    except torch.OutOfMemoryError:
        raise
    except UserError as error:
        return error.reason
    except Exception as error:  # each architecture fails in its own way
        return f"{type(error).__name__}: {first_line(error)}"


def too_far(model: Any, ids: Sequence[int], scores: FloatArray) -> str | None:
    """What to say of the log-probabilities of the last ones of `ids`, beside those of an ordinary forward pass; None if
    only rounding is behind the difference."""
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    with torch.inference_mode(), evaluating(model):
        logits = model(input_ids=tokens, use_cache=False).logits[0, -len(scores) - 1 : -1]
    plain = logits.float().log_softmax(-1).gather(-1, tokens[0, -len(scores) :, None])[:, 0].double().cpu().numpy()
    # By tenths where a log-probability is beyond 10: large numbers are rounded more.
    gap = float((np.abs(scores - plain) / np.maximum(1, np.abs(plain) / 10)).max())
    dtype = model.get_input_embeddings().weight.dtype
    least = 1e-3 if dtype == torch.float32 and not hasattr(model.config, "quantization_config") else 0.2
    tolerance = max(least, _ROUNDINGS * step_at(logits, dtype))
    return None if gap <= tolerance else f"log-probabilities are off by {gap:.2g}"  # also if it is NaN


def ordinary_tokens(model: Any, count: int) -> tuple[int, ...]:
    """Tokens to try a model with, spread over those whose embeddings are of more than middling length. Others were
    seldom trained, if ever (SmolLM2's first ones); what follows these differs by nats from one order of adding numbers
    up to another."""
    lengths = torch.linalg.vector_norm(model.get_input_embeddings().weight.detach(), dim=1, dtype=torch.float32)
    trained = lengths.argsort()[len(lengths) // 2 :].tolist()
    return tuple(trained[k * len(trained) // count] for k in range(count))
