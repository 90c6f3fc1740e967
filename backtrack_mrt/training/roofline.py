"""How long one step of reinforcement learning takes: operations and bytes, over what a device can do (its roofline),
and what comes on top of them.

A token costs two operations per weight on its way forward, two more per weight on the way back (four where the weights
themselves are trained), and two again where activations are recomputed; attention costs extra, by the tokens that it
looks at. Decoding reads all weights for every token, and then, in kernels of its own, the cache of its rows. An adapter
beside 16-bit weights moves its inputs and outputs once more. What a device can do is taken with a discount, and around
the products there are kernels and Python: `Overhead`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.runs.memory import allowed_memory


@dataclass(frozen=True)
class Overhead:
    """What is lost of a device. matrix, stream: the shares that are reached of its operations and its bandwidth. The
    others are seconds, measured on one H200 (docs/gpu.md). kernels: of a layer's small kernels in a decoding step, one
    behind the other. host: in which Python launches a layer, in any other pass. capture: a layer, to record a step of a
    new shape as a graph. step: of a decoding step, around the model. batch: of a micro-batch, around the model."""

    matrix: float = 0.4
    stream: float = 0.6
    kernels: float = 3e-4
    host: float = 0.0
    capture: float = 0.0
    step: float = 0.0
    batch: float = 0.0


NONE = Overhead(matrix=1, stream=1, kernels=0)  # the roofline itself
ON_CPU = Overhead()  # kernels: the Python around the products
ON_GPU = Overhead(host=2e-3, capture=2e-3, step=5e-4, batch=0.035)  # kernels: about 100 of 3 µs
VLLM = Overhead(kernels=2e-5)  # fused, and recorded before the first step
PACK = 2048  # tokens that the HF engine reads in one pass
SLOTS = 128  # to which the length of its steps is rounded on a GPU


@dataclass(frozen=True)
class Device:
    """Peak numbers: operations per second in bfloat16 and in float32 (without sparsity), bytes per second from memory;
    `memory` in bytes. What is not known is 0. cpu: it is none of the GPUs."""

    name: str
    bfloat16: float
    float32: float
    bandwidth: float
    memory: int
    cpu: bool = False


MIB = 2**20
DEVICES = {  # speeds of the vendors' data sheets (SXM where there are several), memory as their tools tell it
    "a100": Device("a100", 312e12, 19.5e12, 2.04e12, 81_920 * MIB),
    "h100": Device("h100", 989e12, 67e12, 3.35e12, 81_559 * MIB),
    "h200": Device("h200", 989e12, 67e12, 4.8e12, 143_771 * MIB),
    "b200": Device("b200", 2250e12, 75e12, 8.0e12, 183_359 * MIB),
    "mi300": Device("mi300", 1307e12, 163e12, 5.3e12, 196_288 * MIB),
    "l40s": Device("l40s", 362e12, 91.6e12, 0.864e12, 46_068 * MIB),
    "rtx4090": Device("rtx4090", 165e12, 82.6e12, 1.01e12, 24_564 * MIB),
}
HERE = "here"  # the name of the machine that asks
CPU = "this CPU"


@dataclass(frozen=True)
class Network:
    """What a token costs in one model. matrix: the weights that it is multiplied with. read: their bytes. cache: bytes
    of keys and values per token. width: of the queries of all layers together. adapter: bytes that an adapter moves on
    its own on the way forward, beside the products."""

    matrix: int
    read: int
    cache: int
    layers: int
    width: int
    adapter: int = 0

    def forward(self, tokens: float, context: float) -> float:
        """Operations of `tokens` tokens that look at `context` tokens each."""
        return tokens * (2 * self.matrix + 4 * self.width * context)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by part. asynchronous: whether the update goes on beside the other two."""

    rollout: float
    prover: float
    update: float
    asynchronous: bool = False

    @property
    def total(self) -> float:
        drawing = self.rollout + self.prover
        return max(drawing, self.update) if self.asynchronous else drawing + self.update


@dataclass(frozen=True)
class Clock:
    """Times of `network` on `device`, in `dtype`."""

    network: Network
    device: Device
    dtype: str
    overhead: Overhead

    @property
    def ideal(self) -> Clock:
        """The roofline itself."""
        return replace(self, overhead=NONE)

    def reading(self, tokens: float, context: float, passes: float = 1, batches: float = 0) -> float:
        """Seconds for `tokens` tokens that are known beforehand, in so many batches of `passes` forward passes or their
        like: the device's, or Python's where that launches more slowly than the device works."""
        products = self.network.forward(tokens, context) / self._operations
        moved = tokens * self.network.adapter / self._bytes
        return passes * max(products + moved, batches * self.network.layers * self.overhead.host)

    def decoding(self, rows: int, at_once: int, steps: float, context: float) -> float:
        """Seconds for `steps` tokens, one after the other, in each of `rows` rows that hold `context` tokens."""
        seconds = 0.0
        for side_by_side, times in ((at_once, rows // at_once), (rows % at_once, 1)):
            if side_by_side and times:
                seconds += times * steps * self._step(side_by_side, context) + self._captures(steps)
        return seconds

    def _step(self, rows: int, context: float) -> float:
        """Seconds for one token in each of so many rows."""
        network, lost = self.network, self.overhead
        linear = max(network.forward(rows, 0) / self._operations, network.read / self._bytes)
        looks = max(
            (network.forward(rows, context) - network.forward(rows, 0)) / self._operations,
            rows * context * network.cache / self._bytes,
        )
        return linear + looks + rows * network.adapter / self._bytes + lost.kernels * network.layers + lost.step

    def _captures(self, steps: float) -> float:
        """Seconds in which the shapes of so many steps run from Python, and are recorded."""
        if not self.overhead.capture:
            return 0.0
        shapes = ceil(steps / SLOTS) + 1
        return shapes * self.network.layers * (self.overhead.host + self.overhead.capture)

    @property
    def _operations(self) -> float:
        """That are reached in a second."""
        peak = self.device.bfloat16 if self.dtype == "bfloat16" else self.device.float32
        return self.overhead.matrix * peak

    @property
    def _bytes(self) -> float:
        """That are reached in a second."""
        return self.overhead.stream * self.device.bandwidth


def overhead(device: Device) -> Overhead:
    """Of PyTorch there."""
    return ON_CPU if device.cpu else ON_GPU


def device(name: str) -> Device:
    """The device of that name, or one of so much memory ("48GiB"); `HERE` is this machine's GPU, else its CPU, which is
    measured. Raises UserError."""
    if name.lower() in DEVICES:
        return DEVICES[name.lower()]
    if sized := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gi?b)", name.lower()):
        unit = 2**30 if sized[2] == "gib" else 10**9
        memory = round(float(sized[1]) * unit)
        if memory == 0:
            raise UserError("--dry-run", name, "no memory", "Say what the device has, such as 48GiB.")
        return Device(name, 0.0, 0.0, 0.0, memory)
    if name != HERE:
        raise UserError("--dry-run", name, "no such device", did_you_mean(name, [*DEVICES, HERE, "48GiB"]))
    import torch

    if not torch.cuda.is_available():
        return _measured_cpu()
    here = torch.cuda.get_device_name().lower().replace(" ", "")
    found = next((known for known in DEVICES if known in here), None)
    if found is None:
        raise UserError("--dry-run", here, "this GPU's peak is not known", f"Name a like one: {', '.join(DEVICES)}.")
    return DEVICES[found]


def this_device() -> Device:
    """This machine's GPU, or its CPU with all the memory that this process may have; speeds are not measured."""
    import torch

    if torch.cuda.is_available():
        return Device(torch.cuda.get_device_name(), 0, 0, 0, torch.cuda.get_device_properties(0).total_memory)
    return Device(CPU, 0, 0, 0, allowed_memory(), cpu=True)


def _measured_cpu(size: int = 512, seconds: float = 0.3) -> Device:
    """This machine's CPU: a product of matrices and a copy, repeated for so long, the best of each."""
    import torch

    one, other = torch.rand(2, size, size)
    long = torch.rand(2**24)
    place = torch.empty_like(long)

    def best(work: Callable[[], object]) -> float:
        fastest, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            work()
            fastest = min(fastest, time.perf_counter() - start)
        return fastest

    operations = 2 * size**3 / best(lambda: one @ other)
    bandwidth = 2 * 4 * len(long) / best(lambda: place.copy_(long))
    return replace(this_device(), bfloat16=operations, float32=operations, bandwidth=bandwidth)
