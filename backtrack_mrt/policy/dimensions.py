"""What a model's shape comes to, counted on a model without storage: its weights, and what it keeps of a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import FIELD, first_line, refusal

UNLIMITED = 1 << 20  # positions of a model that has no end of its own (ALiBi, recurrent states)
_CHOSEN = ("num_experts_per_tok", "moe_k")  # what configs call the number of experts that a token meets


@dataclass(frozen=True)
class Dimensions:
    """Counted in numbers, of whatever type. linear: weights of the layers' linear modules, which can be packed.
    experts: of those that a token meets a few of. active: of both, what one token is multiplied with. feed_forward: the
    widest input of a layer's matrices. width: of the queries of all layers together. cached: kept of a row, per token;
    state: kept of it however long it is."""

    context: int
    parameters: int
    linear: int
    experts: int
    active: int
    vocabulary: int
    layers: int
    hidden: int
    feed_forward: int
    width: int
    cached: int
    state: int


def measured(section: ModelSection, model: Any) -> Dimensions:
    """Of `model`, which has the section's shape, no storage and no adapter. Raises UserError for one that keeps nothing
    of what it has read, and so samples nothing here."""
    try:
        return _measured(section, model)
    except UserError:
        raise
    except Exception as error:  # each architecture fails in its own way
        raise refusal(section, f"its shape cannot be told: {type(error).__name__}: {first_line(error)}") from error


def _measured(section: ModelSection, model: Any) -> Dimensions:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config = model.config.get_text_config()
    linear, experts, active, widest, routed = 0, 0, 0, 0, list[int]()
    for module in model.get_decoder().modules():
        if isinstance(module, nn.Linear | Conv1D):
            linear += module.weight.numel()
            widest = max(widest, module.in_features if isinstance(module, nn.Linear) else module.nx)
        for weight in module.parameters(recurse=False):
            if weight.dim() == 3 and weight.shape[1] > 1:  # a matrix for each expert, no convolution
                there = weight.shape[0]
                chosen = next((n for name in _CHOSEN if (n := getattr(config, name, None))), there)
                experts += weight.numel()
                active += weight.numel() * min(chosen, there) // there
                routed.append(chosen * weight[0].numel() // config.hidden_size)
    config.pad_token_id = model.config.pad_token_id = None  # else some look for it among the tokens, which are none
    one, two = (_kept(section, model, tokens) for tokens in (1, 2))
    return Dimensions(
        context=context_length(config),
        parameters=sum(weight.numel() for weight in model.parameters()),
        linear=linear,
        experts=experts,
        active=linear + active,
        vocabulary=model.get_output_embeddings().weight.shape[0],
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        feed_forward=max(widest, min(routed, default=0)),  # the one that reads; gate and up lie together
        width=config.num_hidden_layers * _queries(config),
        cached=two - one,
        state=2 * one - two,
    )


def _queries(config: Any) -> int:
    """Width of a layer's queries; of latent attention, whose values are narrower, the mean of both."""
    heads = config.num_attention_heads
    if (values := getattr(config, "v_head_dim", None)) is not None:
        return int(heads * (config.qk_nope_head_dim + config.qk_rope_head_dim + values) // 2)
    return int(heads * (getattr(config, "head_dim", None) or config.hidden_size // heads))


def _kept(section: ModelSection, model: Any, tokens: int) -> int:
    """Numbers that transformers' cache holds after so many tokens. Raises UserError where there is none."""
    import torch

    with torch.no_grad():
        output = model.eval()(input_ids=torch.zeros(1, tokens, dtype=torch.long, device="meta"), use_cache=True)
    if (cache := getattr(output, "past_key_values", None)) is None:
        reason = f"its architecture {model.config.model_type} is not served: no keys and values are kept"
        raise UserError(FIELD, section.name_or_path, reason, "Take a causal language model.")
    return sum(held.numel() for layer in cache.layers for held in _tensors(vars(layer).values()) if held.dim() > 1)


def _tensors(held: Iterable[Any]) -> Iterator[Any]:
    """Those that are there, also in lists and dicts."""
    import torch

    for each in held:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, list | tuple | dict):
            yield from _tensors(each.values() if isinstance(each, dict) else each)


def context_length(config: Any) -> int:
    """Positions that one encoding serves. LongRoPE (Ding et al. 2402.13753) turns all keys by other angles once a text
    is longer than the model was first trained on, also those that are cached: such a model is used up to there."""
    config = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", "seq_length")
    longest = next((int(found) for name in names if (found := getattr(config, name, None))), UNLIMITED)
    ropes = getattr(config, "rope_parameters", None) or {}
    by_kind_of_layer = [rope for rope in ropes.values() if isinstance(rope, dict)]
    for rope in (ropes, *by_kind_of_layer):
        if rope.get("rope_type") == "longrope":
            own = getattr(config, "original_max_position_embeddings", None)
            longest = min(longest, int(rope.get("original_max_position_embeddings") or own or longest))
    return longest
