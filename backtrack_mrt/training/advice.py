"""What to lower where a plan does not fit: the fewest settings, each as little as will do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backtrack_mrt.runs import processes
from backtrack_mrt.training.roofline import Device
from backtrack_mrt.training.sizes import Sizes, memory, room, suffices, usable

Changes = dict[str, Any]  # values by the dotted names of their fields


def smaller(sizes: Sizes, device: Device) -> Changes | None:
    """The changes with which it fits; None if no change that is known here is enough."""
    found: Changes = {}
    for options in (_micro_batches, _checkpoints, _vllm_shares, _rows, _packed):
        tried = found
        for change in options(_changed(sizes, found), device):
            tried = found | change
            if suffices(_changed(sizes, tried), device):
                return _needed(sizes, device, tried)
        found = tried  # the last one is the smallest
    return None


def advice(sizes: Sizes, device: Device) -> str:
    """In one line."""
    if (changes := smaller(sizes, device)) is not None:
        return "It fits with " + " ".join(f"--{name} {written(value)}" for name, value in changes.items()) + "."
    others = ["a larger device", "a smaller model"]
    if sizes.config.engine.server is None:
        others.append("a vLLM server on GPUs of its own (engine.server)")
    if processes.sharding() is None and 2 * sizes.base <= usable(device):  # whole, and a copy of it
        others.append("several processes under configs/accelerate/fsdp.yaml")
    return f"Take {', '.join(others[:-1])}, or {others[-1]}."


def _needed(sizes: Sizes, device: Device, changes: Changes) -> Changes:
    """The changes without those that it fits without."""
    for name in list(changes):
        fewer = {other: value for other, value in changes.items() if other != name}
        if suffices(_changed(sizes, fewer), device):
            changes = fewer
    return changes


def _changed(sizes: Sizes, changes: Changes) -> Sizes:
    config = sizes.config
    for name, value in changes.items():
        section, _, field = name.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={field: value})})
    return replace(sizes, config=config)


def _micro_batches(sizes: Sizes, device: Device) -> Iterator[Changes]:
    now = min(sizes.config.training.micro_batch_size, sizes.rows)
    for size in range(now - 1, 0, -1):
        if sizes.rows % size == 0:
            yield {"training.micro_batch_size": size}


def _checkpoints(sizes: Sizes, device: Device) -> Iterator[Changes]:
    if not sizes.config.model.gradient_checkpointing:
        yield {"model.gradient_checkpointing": True}


def _vllm_shares(sizes: Sizes, device: Device) -> Iterator[Changes]:
    """The largest share of vLLM's that leaves room for the rest, if it is enough for vLLM."""
    if room(sizes, device) is not None:
        rest = sum(size for name, size in memory(sizes, device).items() if not name.startswith("vLLM"))
        share = int(100 * (usable(device) - rest) / device.memory) / 100
        if 0 < share <= 1:
            yield {"engine.gpu_memory": share}


def _rows(sizes: Sizes, device: Device) -> Iterator[Changes]:
    rows = sizes.at_once
    while sizes.config.engine.type == "hf" and rows > 1:
        rows //= 2
        yield {"engine.max_rows": rows}


def _packed(sizes: Sizes, device: Device) -> Iterator[Changes]:
    model, engine = sizes.config.model, sizes.config.engine
    whole = processes.sharding() is None  # packed weights are not cut up
    if (
        whole
        and not model.full_finetuning
        and model.quantization is None
        and (engine.type == "hf" or engine.server is not None)
    ):
        yield {"model.quantization": "nf4"}


def written(value: Any) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {written(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
