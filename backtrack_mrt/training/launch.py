"""What may start under which launcher, told before a weight is read. docs/processes.md has the table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.config import Config
from backtrack_mrt.errors import NO_VALUE, UserError, short
from backtrack_mrt.runs import processes

_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_OWN = ("RANK", "LOCAL_RANK")  # without which each of several processes that meet takes itself for the first
_PRECISION = "ACCELERATE_MIXED_PRECISION"


def check_launch(config: Config) -> None:
    """Raises UserError for a run that the launcher's processes cannot do together, or would do otherwise than the
    config says."""
    several, sharding = processes.count(), processes.sharding()
    processes.check_numbers()
    _check_environment(config, several)
    if sharding:
        _check_sharding(config, sharding)
    if sharding == "FSDP":
        _check_fsdp(config)
    if several > 1:
        _check_sharing(config, several)
        _check_rows(config, several)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        settings = processes.deepspeed_settings()
        if settings is None:
            _check_update(config, several)
        else:
            _check_file(config, several, settings)


def _check_environment(config: Config, several: int) -> None:
    """Libraries look for other processes wherever there is a LOCAL_RANK, and compute in what the launcher says."""
    name = "WORLD_SIZE" if several > 1 else "LOCAL_RANK"
    wanted = _MEETING + _OWN if several > 1 and os.environ.get(_MEETING[0]) else _MEETING
    missing = [each for each in wanted if each not in os.environ]
    if missing and os.environ.get(name, "-1") != "-1":
        reason = f"a launcher's, which sets {' and '.join(missing)} too"
        raise UserError(name, os.environ[name], reason, "Start with `accelerate launch` or torchrun, or unset it.")
    said, dtype = os.environ.get(_PRECISION, "no"), config.model.dtype
    if said not in ("no", "bf16" if dtype == "bfloat16" else "no"):
        reason = f"the updates would compute in it, and model.dtype is {dtype}"
        raise UserError(_PRECISION, said, reason, "Launch with mixed_precision: no, and set model.dtype.")


def _check_sharding(config: Config, sharding: str) -> None:
    """What needs whole weights where the launcher cuts them up, over however many processes."""
    model = config.model
    if sharding == "ZeRO-3" and find_spec("deepspeed") is None:
        reason = "the launcher cuts the model up with DeepSpeed, which is not installed"
        remedy = "pip install 'backtrack-mrt[deepspeed]', or launch with configs/accelerate/fsdp.yaml."
        raise UserError("launcher", sharding, reason, remedy)
    if model.quantization is not None:
        reason = f"{sharding} cuts up weights, and these are packed in blocks with scales"
        remedy = "Leave it out, or launch with configs/accelerate/ddp.yaml."
        raise UserError("model.quantization", model.quantization, reason, remedy)
    if model.full_finetuning and config.training.kl:
        reason = f"its reference is a whole copy of the model, which {sharding} cuts up"
        remedy = "Set it to 0, train an adapter, or launch with configs/accelerate/ddp.yaml."
        raise UserError("training.kl", config.training.kl, reason, remedy)
    if config.answer_weight:
        reason = f"the answers' loss reads the output layer after the forward pass, when {sharding} has it in pieces"
        raise UserError(
            "algorithm.answer_weight", config.answer_weight, reason, "Set it to 0, or launch with ddp.yaml."
        )


def _check_fsdp(config: Config) -> None:
    """What a file for FSDP says must be something that can be done with this model, on this machine."""
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        reason = "its first version flattens weights together, which cannot be read one by one"
        raise UserError("fsdp_version", version, reason, "Set it to 2, or launch with configs/accelerate/fsdp.yaml.")
    import torch
    from accelerate import FullyShardedDataParallelPlugin

    policy = os.environ.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP")
    if policy.upper() == "SIZE_BASED_WRAP":
        reason = "it would cut up lists of layers, which are never called, too"
        raise UserError("fsdp_auto_wrap_policy", policy, reason, "Set it to TRANSFORMER_BASED_WRAP.")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true" and not torch.cuda.is_available():
        reason = "the weights lie in the memory of the machine already: there is no GPU"
        raise UserError("fsdp_offload_params", "true", reason, "Set it to false.")
    try:
        FullyShardedDataParallelPlugin()  # as the trainer makes it, by the environment
    except (ValueError, KeyError, AttributeError) as error:
        remedy = "Correct the launcher's file, or launch with configs/accelerate/fsdp.yaml."
        raise UserError("fsdp_config", NO_VALUE, f"accelerate does not take it ({short(error)})", remedy) from None
    if policy.upper() == "TRANSFORMER_BASED_WRAP" and (named := os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP")):
        _check_layers(config, named)


def _check_layers(config: Config, named: str) -> None:
    """Classes of layers that a launcher's file names must be there."""
    import torch

    from backtrack_mrt.policy.models import untrained

    if isinstance(config.algorithm, SelfTraining) and config.algorithm.iterations > 1:
        reason = "FSDP renames these classes in the first iteration, and the next one would not find them"
        raise UserError(
            "fsdp_transformer_layer_cls_to_wrap", named, reason, "Leave it out: the model says them itself."
        )
    with torch.device("meta"):
        model = untrained(config.model)
    there = {type(module).__name__ for module in model.modules()}
    usual = sorted(there.intersection(getattr(model, "_no_split_modules", None) or ()))
    for name in named.split(","):
        if name not in there:
            reason = f"{config.model.name_or_path} has no layer of this class"
            remedy = f"Leave it out: then it is {', '.join(usual)}." if usual else "Leave it out."
            raise UserError("fsdp_transformer_layer_cls_to_wrap", name, reason, remedy)


def _check_sharing(config: Config, several: int) -> None:
    """TRL deals an update's rows out to the processes whatever their groups; self-training deals out whole groups."""
    section = config.engine
    if section.type == "vllm" and section.server is None:
        reason = f"in this process it opens a process group of its own, beside the launcher's of {several} processes"
        raise UserError("engine.type", "vllm", reason, "Start a server and name it in engine.server, or take hf.")
    if config.algorithm.loss == "rl" and not config.algorithm.collection.spans:
        reason = f"its groups are collected whole, and the rows of an update are dealt out to {several} processes"
        raise UserError("algo", config.algo, reason, "Start it without a launcher, or choose mrt-rl.")


def _check_rows(config: Config, several: int) -> None:
    """The rows of an update must come out even over the processes and their micro-batches."""
    rows, micro_batch = config.rows_per_update, config.training.micro_batch_size
    field = "training.problems_per_step"
    if rows % several:
        reason = f"{rows} rows per update cannot be shared evenly by {several} processes"
        raise UserError(field, config.training.problems_per_step, reason, "Change it, or the number of processes.")
    own = rows // several
    if own % min(micro_batch, own):
        fitting = max(n for n in range(1, micro_batch + 1) if own % n == 0)
        reason = f"each of {several} processes has {own} rows per update, which is not divisible by it"
        raise UserError("training.micro_batch_size", micro_batch, reason, f"Set it to {fitting}.")


def _check_update(config: Config, several: int) -> None:
    """What a launcher's file says of an update by DeepSpeed must be what the config says: both are told."""
    ours = _updates(config, several)
    for name, field in (("gradient_accumulation_steps", "micro_batch_size"), ("gradient_clipping", "max_grad_norm")):
        said = os.environ.get(f"ACCELERATE_{name.upper()}", "auto")
        if said != "auto" and not _is(said, ours[name]):
            remedy = f"Leave it out of the launcher's file, or change training.{field}."
            raise UserError(name, said, f"it is {ours[name]} by the run's config", remedy)


def _check_file(config: Config, several: int, settings: Mapping[str, Any]) -> None:
    """The same for a file of DeepSpeed's own, which may say more. What it leaves out has DeepSpeed's defaults."""
    remedy, rows = 'Set it to "auto" in the file.', ("train_micro_batch_size_per_gpu", "train_batch_size")
    if not {*rows} & settings.keys():
        raise UserError(rows[0], NO_VALUE, "not in deepspeed_config_file, and it wants to be told", remedy)
    said = {"gradient_accumulation_steps": 1, "gradient_clipping": 0, **settings}
    for name, ours in _updates(config, several).items():
        if said.get(name, "auto") not in ("auto", ours):
            reason = f"in deepspeed_config_file, and by the run's config it is {ours}"
            raise UserError(name, said[name], reason, remedy)
    computed = {"fp16": False, "bf16": config.model.dtype == "bfloat16", "amp": False}
    for name, ours in computed.items():
        enabled = settings[name].get("enabled", False) if isinstance(settings.get(name), dict) else ours
        if enabled not in ("auto", ours):
            reason = f"in deepspeed_config_file, and model.dtype is {config.model.dtype}"
            raise UserError(f"{name}.enabled", enabled, reason, "Leave it out of the file, or change model.dtype.")
    for name in ("optimizer", "scheduler"):
        if name in settings:
            reason = "in deepspeed_config_file, and the run's config says it"
            raise UserError(name, settings[name], reason, "Leave it out of the file.")


def _updates(config: Config, several: int) -> dict[str, float]:
    """What the config says of an update, as DeepSpeed names it."""
    own, training = config.rows_per_update // several, config.training
    micro_batch = min(training.micro_batch_size, own)
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "train_batch_size": config.rows_per_update,
        "gradient_accumulation_steps": own // micro_batch,
        "gradient_clipping": training.max_grad_norm,
    }


def _is(said: str, number: float) -> bool:
    try:
        return float(said) == number
    except ValueError:
        return False
