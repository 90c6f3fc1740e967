"""What may start under which launcher, told before a weight is read. docs/processes.md has the table."""

from __future__ import annotations

import os
from importlib.util import find_spec

from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import processes

_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_PRECISION = "ACCELERATE_MIXED_PRECISION"


def check_launch(config: Config) -> None:
    """Raises UserError for a run that the launcher's processes cannot do together, or would do otherwise than the
    config says."""
    several, sharding = processes.count(), processes.sharding()
    _check_environment(config, several)
    if sharding:
        _check_sharding(config, sharding)
    if several > 1:
        _check_sharing(config, several)
        _check_rows(config, several)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        _check_update(config, several)


def _check_environment(config: Config, several: int) -> None:
    """Libraries look for other processes wherever there is a LOCAL_RANK, and compute in what the launcher says."""
    name = "WORLD_SIZE" if several > 1 else "LOCAL_RANK"
    missing = [each for each in _MEETING if each not in os.environ]
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
    if sharding == "FSDP" and (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        reason = "its first version flattens weights together, which cannot be read one by one"
        raise UserError("fsdp_version", version, reason, "Set it to 2, or launch with configs/accelerate/fsdp.yaml.")
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
    """What a file for DeepSpeed says of an update must be what the config says: both are told."""
    own, training = config.rows_per_update // several, config.training
    micro_batches = own // min(training.micro_batch_size, own)
    for name, ours, field in (
        ("gradient_accumulation_steps", micro_batches, "training.micro_batch_size"),
        ("gradient_clipping", training.max_grad_norm, "training.max_grad_norm"),
    ):
        said = os.environ.get(f"ACCELERATE_{name.upper()}", "auto")
        if said != "auto" and not _is(said, ours):
            remedy = f"Leave it out of the launcher's file, or change {field}."
            raise UserError(name, said, f"it is {ours} by the run's config", remedy)


def _is(said: str, number: float) -> bool:
    try:
        return float(said) == number
    except ValueError:
        return False
