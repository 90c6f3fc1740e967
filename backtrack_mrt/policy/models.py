"""The policy and its tokenizer by name: embedded, from a directory, from the hub. torch is imported only to load.

A model is data: weights are read from safetensors only, never unpickled, and code that comes with a model is not run.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.policy.files import FIELD, TINY, base_of, find_model, first_line, is_adapter, refusal, shape
from backtrack_mrt.runs.processes import sharding

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter_model.safetensors"


def load_policy(section: ModelSection, seed: int) -> tuple[Any, Any]:
    """The model, with a fresh LoRA adapter unless it is trained in full, and its tokenizer.

    The adapter's start depends on `seed` only and changes nothing yet (B = 0); its weights are float32 whatever the
    model's are. Raises UserError for a model that is missing, cannot be read, or is not what the config says."""
    tokenizer = load_tokenizer(section)
    return load_model(section, tokenizer, seed), tokenizer


def load_tokenizer(section: ModelSection) -> Any:
    """The model's tokenizer, for an adapter without one its base's. What can be refused before the weights are read is
    refused here. Raises UserError."""
    source = find_model(section)
    _check_quantization(section, Path(source))
    _check_code(section)
    if is_adapter(Path(source)) and not (Path(source) / "tokenizer_config.json").is_file():
        return load_tokenizer(base_of(section))
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=section.revision, trust_remote_code=False)
    except Exception as error:  # whatever is in the files
        raise refusal(section, f"its tokenizer cannot be loaded: {first_line(error)}") from error
    if (token := section.eos_token) is not None:
        if token not in tokenizer.get_vocab():
            own = [added.content for added in tokenizer.added_tokens_decoder.values()]
            raise UserError("model.eos_token", token, "the tokenizer has no such token", did_you_mean(token, own))
        tokenizer.eos_token = token
    return tokenizer


def load_model(section: ModelSection, tokenizer: Any, seed: int) -> Any:
    """The model of `load_policy`. Raises UserError."""
    model = load_merged(section)
    _check_shape(section, model.config)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise refusal(section, f"its tokenizer has {len(tokenizer)} tokens, more than the model has embeddings")
    if section.quantization is None:
        model.to(_device())
    return _prepared(model, tokenizer, section, seed)


def random_policy(section: ModelSection, seed: int) -> tuple[Any, Any]:
    """A policy of the section's shape with random weights, made where it is to stay, and the embedded model's
    tokenizer: for measuring what needs no sense. Raises UserError."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find_model(ModelSection(name_or_path=TINY)))
    with _device():
        torch.manual_seed(seed)
        model = untrained(section)
    return _prepared(model, tokenizer, section, seed), tokenizer


def skeleton(section: ModelSection) -> Any:
    """A model of the section's shape without storage. Raises UserError."""
    import torch

    with torch.device("meta"):
        return untrained(section.model_copy(update={"dtype": "bfloat16"}))  # there experts know no other


def untrained(section: ModelSection) -> Any:
    """A model of the section's shape with random weights, on torch's default device. Raises UserError for one that
    `load_model` would not load."""
    import torch
    import transformers

    _check_code(section)
    _check_packed(section)
    said, known = shape(section), transformers.CONFIG_MAPPING
    if (kind := said["model_type"]) not in known:
        raise refusal(section, f"transformers {transformers.__version__} knows no model_type {kind!r}")
    for part in (said, said.get("text_config") or {}):
        _check_counts(section, part)
    left_out = ("transformers_version", "dtype", "auto_map", "quantization_config")
    try:
        config = transformers.AutoConfig.for_model(**{name: said[name] for name in said if name not in left_out})
        return transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, section.dtype))
    except UserError:
        raise
    except Exception as error:  # a config.json that makes no sense: libraries tell it in many ways
        raise refusal(section, f"cannot be made: {first_line(error)}") from error


def _check_counts(section: ModelSection, said: Mapping[str, Any]) -> None:
    """Libraries divide by them, or take them for nothing."""
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        if isinstance(value := said.get(name), int) and value < 1:
            raise refusal(section, f"config.json says {name}: {value}")


def _prepared(model: Any, tokenizer: Any, section: ModelSection, seed: int) -> Any:
    """The model ready for training, with its adapter."""
    if tokenizer.pad_token_id is None:  # it is always masked, so any token will do: Llama's own one if it is there
        own = "<|finetune_right_pad_id|>"
        tokenizer.pad_token = own if own in tokenizer.get_vocab() else tokenizer.eos_token
    _without_dropout(model)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = not section.gradient_checkpointing  # the engine asks for its cache itself
    return model if section.full_finetuning else with_adapter(model, section, seed)


def load_merged(section: ModelSection) -> Any:
    """The model itself. A directory with an adapter is the model that it was trained from (which may be such a
    directory too) with the adapter merged in. Raises UserError."""
    source = find_model(section)
    _check_packed(section)
    base = load_merged(base_of(section)) if is_adapter(Path(source)) else None
    import torch
    from transformers import AutoModelForCausalLM

    try:
        if base is None:
            dtype, packing = getattr(torch, section.dtype), _quantized(section)
            safely = {"use_safetensors": True, "trust_remote_code": False}
            model = AutoModelForCausalLM.from_pretrained(
                source, revision=section.revision, dtype=dtype, **safely, **packing
            )
            for module in model.modules() if packing else ():
                # bitsandbytes repacks weights for good at the first inference on some CPUs; no gradient passes then.
                module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
            return model
        from peft import PeftModel

        if not (file := Path(source) / ADAPTER).is_file():  # peft would look for pickled ones
            raise refusal(section, f"the adapter has no {file.name}")
        adapted = PeftModel.from_pretrained(base, source)
        _check_adapter(section, adapted, Path(source))
        model = adapted.merge_and_unload()
    except UserError:
        raise
    except Exception as error:  # damaged weights, a config.json that makes no sense: libraries tell it in many ways
        raise refusal(section, f"cannot be loaded: {first_line(error)}") from error
    model.name_or_path = source  # what an adapter on top of it will name as its base
    warnings.filterwarnings("ignore", message="Could not find a config file in")  # peft's, when that one is saved
    return model


def _check_adapter(section: ModelSection, adapted: Any, source: Path) -> None:
    """peft only warns of tensors that are missing or left over."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(source / ADAPTER, "pt") as tensors:
        odd = set(tensors.keys()) ^ set(get_peft_model_state_dict(adapted))
    if odd:
        base = base_of(section).name_or_path
        reason = f"the adapter does not fit its base {base}: {len(odd)} tensors differ, e.g. {min(odd)}"
        raise refusal(section, reason)


def _quantized(section: ModelSection) -> dict[str, Any]:
    """What transformers is told for a base in 4 bits (Dettmers et al. 2305.14314): weights in nf4, their scales
    quantised again, products in the model's dtype. They are packed where they are to stay."""
    if section.quantization is None:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, section.dtype),
    )
    return {"quantization_config": config, "device_map": {"": _device()}}


def _check_quantization(section: ModelSection, source: Path) -> None:
    field, kind = "model.quantization", section.quantization
    if kind is None:
        return
    if find_spec("bitsandbytes") is None:
        raise UserError(field, kind, "bitsandbytes is not installed", "pip install 'backtrack-mrt[qlora]'.")
    if is_adapter(source):
        reason = f"{source} is an adapter, which would be rounded to 4 bits where it is merged"
        raise UserError(field, kind, reason, "Name a whole model, or leave quantization out.")


def _check_code(section: ModelSection) -> None:
    """transformers would say the same, but only when it comes to the weights."""
    from transformers import CONFIG_MAPPING

    config = shape(section)
    if "auto_map" in config and config["model_type"] not in CONFIG_MAPPING:
        reason = f"{config['model_type']} needs code that comes with the model (auto_map), which is not run"
        raise UserError(FIELD, section.name_or_path, reason, "Take a model that transformers knows by itself.")


def _check_packed(section: ModelSection) -> None:
    """Adapters are merged, and weights read, as numbers of `model.dtype`. transformers unpacks gpt-oss (mxfp4)."""
    packed = shape(section).get("quantization_config")
    if isinstance(packed, dict) and (kind := packed.get("quant_method")) != "mxfp4":
        bits = 4 if packed.get("load_in_4bit") else packed.get("bits")
        reason = f"its weights are packed already ({kind}{f', {bits} bits' if bits else ''})"
        remedy = "Name the model that they were packed from, with --model.quantization nf4 for 4 bits."
        raise UserError(FIELD, section.name_or_path, reason, remedy)


def with_adapter(model: Any, section: ModelSection, seed: int) -> Any:
    """`model` with a new LoRA adapter, the only part that is trained. No dropout: rollouts run in training mode."""
    import torch
    from peft import LoraConfig, get_peft_model

    lora = section.lora
    targets = "all-linear" if lora.targets == ["all-linear"] else lora.targets  # peft's word for them
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    ending = [name.rpartition(".")[2] for name, module in model.named_modules() if any(module is end for end in ends)]
    if odd := sorted(set(ending) & set(lora.targets)):
        reason = f"{odd[0]} is the embedding or the output layer, which gets no adapter"
        raise UserError("model.lora.targets", lora.targets, reason, "Use 'all-linear', or names such as q_proj.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            # DeepSpeed gathers weights of one type only: its adapters are of the model's, others float32.
            adapted = get_peft_model(model, config, autocast_adapter_dtype=sharding() != "ZeRO-3")
        except ValueError as error:
            remedy = "Use 'all-linear', or names of linear modules such as q_proj."
            raise UserError("model.lora.targets", lora.targets, first_line(error), remedy) from error
    kept: Any = adapted.peft_config["default"]
    kept.target_modules = sorted(kept.target_modules)  # of a set, which would be written in another order every time
    return adapted


def frozen_copy(model: Any) -> Any:
    """The reference of a model that is trained in full: a copy of now, never updated. (With LoRA the reference is the
    model with its adapter off, at no cost.) How both attend is set in the one config that they share."""
    reference = copy.deepcopy(model, {id(model.config): model.config}).eval()
    reference.requires_grad_(False)
    return reference


def _check_shape(section: ModelSection, found: Any) -> None:
    """A plan made from `model.architecture` must hold for the model that is trained."""
    said = section.architecture.model_dump(exclude_none=True) if section.architecture else {}
    for name, value in said.items():
        if (actual := getattr(found, name, value)) != value:
            reason = f"the model's config.json says {actual!r}"
            raise UserError(f"model.architecture.{name}", value, reason, "Correct it, or leave architecture out.")


def _without_dropout(model: Any) -> None:
    """The policy that is updated must be the one that was sampled from: GPT-2 and others drop a tenth in training."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or (name == "p" and "Dropout" in type(module).__name__)):
                setattr(module, name, 0.0)


def _device() -> torch.device:
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
