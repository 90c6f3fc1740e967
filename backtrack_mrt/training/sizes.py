"""What a run's memory and time are made of, from the model's shape and the config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from backtrack_mrt.algos.base import SelfTraining
from backtrack_mrt.config import Config
from backtrack_mrt.policy.dimensions import Dimensions
from backtrack_mrt.policy.engine import KEPT, KEPT_BY_CPU
from backtrack_mrt.runs import processes
from backtrack_mrt.training.roofline import PACK, VLLM, Clock, Device, Network, StepTime, overhead

GIB = 2**30
_BYTES = {"float32": 4, "bfloat16": 2}
_NF4 = 0.516  # bytes of a weight in nf4: half a byte, and its block's scale
_FRAMEWORK, _FRAGMENTS = 1.0 * GIB, 0.05  # taken by CUDA and the libraries, and share lost between allocations
_VLLM = 1.5 * GIB  # vLLM's own: activations of a full batch, CUDA graphs
_ASLEEP = "vLLM, asleep during updates"
_IN_ROLLOUTS, _IN_UPDATES = ("KV cache", _ASLEEP), ("activations", "logits")  # what is held then only
_TILE = 4096 * 8192  # logits that TRL's output layer computes at a time


@dataclass(frozen=True)
class Sizes:
    """What memory and time are made of. model: without an adapter. adapted: inputs and outputs of the layers that have
    one. length: of a trajectory."""

    config: Config
    model: Dimensions
    trained: int
    adapted: tuple[int, int]
    length: int

    @property
    def parameters(self) -> int:
        """Of the base: an adapter comes on top."""
        return self.model.parameters

    @property
    def rows(self) -> int:
        """Trajectories per step of one process."""
        return -(-self.config.training.rows // processes.count())

    @property
    def at_once(self) -> int:
        """Trajectories that are rolled out side by side."""
        return min(self.rows, self.config.engine.max_rows)

    @property
    def samples(self) -> int:
        """Forced answers that the meta-prover samples for a prefix, at most."""
        prover = self.config.prover
        return {"monte_carlo": prover.samples, "auto": prover.samples, "greedy": 1}.get(prover.estimator, 0)

    @property
    def histories(self) -> int:
        """Rows of the cache of transformers' engine: beside the trajectories every sampled answer has one, and so many
        are decoded at once, also where a step has fewer trajectories."""
        answers = self.rows * (self.config.protocol.max_turns + 1) * self.samples
        return self.at_once + min(answers, self.config.engine.max_rows)

    @property
    def weight(self) -> int:
        """Bytes of a weight that is not packed."""
        return _BYTES[self.config.model.dtype]

    @property
    def base(self) -> int:
        """Bytes of the base's weights."""
        packed = self.model.linear if self.config.model.quantization else 0
        return (self.parameters - packed) * self.weight + round(packed * _NF4)

    @property
    def adapter(self) -> int:
        """Bytes of the adapter's weights, which are float32."""
        return 0 if self.config.model.full_finetuning else self.trained * 4

    @property
    def copied(self) -> int:
        """Bytes of the copy of the whole model that each process keeps where a launcher cuts that up: what samples
        needs it whole, a server the adapter only."""
        if processes.sharding() is None:
            return 0
        return self.adapter + (self.base if self.config.engine.server is None else 0)

    @property
    def reference(self) -> int:
        """Bytes of the copy of a model that is trained in full, from before training; it is never cut up."""
        config = self.config
        asked = config.prover.policy == "reference" or config.training.kl > 0
        return self.base if config.model.full_finetuning and asked else 0

    @property
    def cache(self) -> int:
        """Bytes of keys and values per token."""
        return self.model.cached * self.weight

    @property
    def history(self) -> int:
        """Bytes that are kept of one trajectory."""
        return self.length * self.cache + self.model.state * self.weight

    @property
    def network(self) -> Network:
        """What a token costs. The rows of a step meet all experts between them."""
        model, output = self.model, self.model.vocabulary * self.model.hidden
        read = round(model.linear * (_NF4 if self.config.model.quantization else self.weight))
        read += (model.experts + output) * self.weight
        return Network(model.active + output, read, self.cache, model.layers, model.width, self._beside)

    @property
    def _beside(self) -> int:
        """Bytes that the adapter's modules move for a token beside 16-bit weights: the input is cast to float32 (6),
        cast back (6) and read (2), the output written (2), scaled (4) and added (6). In float32 the adapter is merged,
        or part of the products."""
        inputs, outputs = self.adapted
        return 14 * inputs + 12 * outputs if self.config.model.dtype == "bfloat16" else 0

    def seconds(self, device: Device, prompt: int, instructions: int, forced: int) -> StepTime:
        """The time of a step: prompts are read once per group, every row samples its whole budget, forced answers
        branch off each prefix, and the update reads every row forwards and backwards. Demonstrations are only read."""
        config = self.config
        samples = config.algorithm.loss == "rl" or isinstance(config.algorithm, SelfTraining)
        training, rows = config.training, self.rows
        trainer = Clock(self.network, device, config.model.dtype, overhead(device))
        vllm = replace(trainer, network=replace(self.network, adapter=0), overhead=VLLM)  # adds adapters in its kernels
        clock = trainer if config.engine.type == "hf" else vllm
        budget = config.protocol.token_budget
        at_once = min(config.engine.max_rows, max(room(self, device) or config.engine.max_rows, 1))
        turns, reads = config.protocol.max_turns, rows / training.group_size * prompt + rows * instructions
        rollout = 0.0
        if samples:
            rollout += clock.reading(reads, self.length / 2, batches=max(turns, reads / PACK))
            rollout += clock.decoding(rows, at_once, budget, self.length / 2)
        asked = rows * (turns + 1) if config.algorithm.asks_prover else 0
        valuing = clock.reading(asked * forced, self.length, batches=ceil(asked * forced / PACK))
        if draws := asked * self.samples:
            valuing += clock.decoding(draws, at_once, config.prover.max_answer_tokens, self.length)
        passes = 1 + (2 if config.model.full_finetuning else 1)  # forwards; backwards through weights and activations
        passes += config.model.gradient_checkpointing + (training.kl > 0)
        batches = ceil(rows / training.micro_batch_size)
        updates = config.updates_per_step  # the logprobs that several of them compare with take a pass of their own
        passes = updates * passes + (updates > 1)
        update = trainer.reading(rows * self.length, self.length / 2, passes, batches)
        update += updates * batches * trainer.overhead.batch
        return StepTime(rollout, valuing, update, training.asynchronous)


def usable(device: Device) -> float:
    """Bytes that a run may plan with."""
    return max((1 - _FRAGMENTS) * device.memory - _FRAMEWORK, 0.0)


def peak(sizes: Sizes, device: Device) -> int:
    """Bytes at the fullest moment. Rollout and update do not overlap, but for a small cache, which is kept."""
    held = memory(sizes, device)
    rollout, update = (sum(held.get(name, 0) for name in names) for names in (_IN_ROLLOUTS, _IN_UPDATES))
    stays = _ASLEEP not in held and rollout < (KEPT_BY_CPU if device.cpu else KEPT * device.memory)
    return max(sum(held.values()) - (0 if stays else min(rollout, update)), while_whole(sizes, device))


def while_whole(sizes: Sizes, device: Device) -> int:
    """Bytes while the base is evaluated, where a launcher cuts the model up: only then does it, and until then each
    process has all of it. 0 without one, where nothing is larger than later."""
    if processes.sharding() is None:
        return 0
    cached = _sampling(sizes, device)["KV cache"]
    return sizes.base + sizes.adapter + sizes.copied + sizes.reference + cached


def suffices(sizes: Sizes, device: Device) -> bool:
    """Whether the device holds it. Always, where its memory is not known."""
    return not device.memory or (peak(sizes, device) <= usable(device) and room(sizes, device) != 0)


def room(sizes: Sizes, device: Device) -> int | None:
    """Whole histories that vLLM in the process has room for beside its copy of the weights; None where there is no such
    vLLM, or the device's memory is not known."""
    engine = sizes.config.engine
    if engine.type != "vllm" or engine.server is not None or not device.memory:
        return None
    left = engine.gpu_memory * device.memory - sizes.parameters * sizes.weight - _VLLM
    return max(int(left // sizes.history), 0)


def memory(sizes: Sizes, device: Device) -> dict[str, int]:
    """Bytes by purpose. Activations: per token and layer what a Llama block keeps for its backward pass (about 10
    vectors of the hidden size and 4 of the feed-forward's), with checkpointing one vector and one whole block. FSDP and
    ZeRO-3 cut up what does not depend on the rows, but for the copies that answer."""
    config, weight, model = sizes.config, sizes.weight, sizes.model
    full, sharding = config.model.full_finetuning, processes.sharding()
    trained = weight if full and sharding != "FSDP" else 4  # adapters are float32, and what FSDP trains
    block = (10 * model.hidden + 4 * model.feed_forward) * weight
    kept = model.layers * model.hidden * weight + block if config.model.gradient_checkpointing else model.layers * block
    micro = min(config.training.micro_batch_size, sizes.rows) * sizes.length
    parts = processes.count() if sharding else 1
    logits = micro * model.vocabulary
    if config.algorithm.loss == "rl":  # in tiles
        logits = min(logits, _TILE)
    return {
        "weights": ((sizes.parameters * trained if full else sizes.base) + sizes.adapter) // parts,
        **({"whole copy": sizes.copied} if sizes.copied else {}),
        **({"reference": sizes.reference} if sizes.reference else {}),
        "gradients": sizes.trained * trained // parts,
        "AdamW": 2 * sizes.trained * trained // parts,
        **_sampling(sizes, device),
        "activations": micro * kept,
        "logits": logits * (weight + 4),  # and their gradient, or a float32 copy
    }


def _sampling(sizes: Sizes, device: Device) -> dict[str, int]:
    """What the engine holds. vLLM takes its whole share at the start, and keeps it during updates unless it sleeps."""
    engine = sizes.config.engine
    if engine.server is not None:
        return {"KV cache": 0}
    if engine.type == "hf":
        return {"KV cache": sizes.histories * sizes.history}
    share = round(engine.gpu_memory * device.memory) or sizes.parameters * sizes.weight + sizes.at_once * sizes.history
    return {_ASLEEP if engine.sleep else "vLLM": share, "KV cache": 0}
