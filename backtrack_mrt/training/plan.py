"""What a run will take, from the config alone: tokens, parameters, memory per GPU, time per step. No weights are read.

Estimates are meant for choosing a machine and a batch: activations are within 15 % of what autograd keeps for a Llama;
fragmentation and the framework's own memory (about 1 GiB on a GPU) come on top. How many processes share the run, and
whether the model is cut up over them, is what the launcher says (`backtrack_mrt.runs.processes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets, on_hub
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import shape
from backtrack_mrt.policy.models import untrained, with_adapter
from backtrack_mrt.rollouts.prompts import CLOSE, FORCE, FORCE_PREFIX, HINT, load_prompts
from backtrack_mrt.runs import processes
from backtrack_mrt.training import roofline
from backtrack_mrt.training.roofline import Clock, Device, Network, StepTime

GIB = 2**30
_BYTES = {"float32": 4, "bfloat16": 2}
_NF4 = 0.516  # bytes of a weight in nf4: half a byte, and its block's scale
_CHARACTERS_PER_TOKEN = 3  # of English and LaTeX; large vocabularies reach 4
_TEMPLATE_TOKENS = 12  # of a chat template around one message
_ASSUMED_QUESTION, _ASSUMED_ANSWER = 1500, 30  # characters, where the problems are on the hub


@dataclass(frozen=True)
class Plan:
    """Sizes of one run. Token counts and times are upper bounds: every trajectory uses up its budget. Memory is in
    bytes per process, and so per GPU."""

    title: str
    steps: int
    processes: int
    sharding: str | None
    rows: int  # trajectories per step, of all processes
    prompt: int  # tokens of the longest opening
    sampled: int  # tokens the model may sample in one trajectory
    instructions: int  # tokens the environment inserts into one trajectory after the opening
    prover: int  # tokens of the forced answers of one trajectory
    length: int  # tokens of the longest trajectory, which ends at the latest where the model's context does
    context: int  # tokens the model can hold
    parameters: int
    trained: int
    device: Device
    network: Network
    memory: dict[str, int]
    seconds: StepTime

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step's trajectories."""
        return self.rows * self.length

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment: rollout and update do not overlap."""
        held = sum(size for name, size in self.memory.items() if name not in ("KV cache", "activations", "logits"))
        return held + max(self.memory["KV cache"], self.memory["activations"] + self.memory["logits"])

    def lines(self) -> list[str]:
        """The plan as text."""
        share, device, seconds = f"{100 * self.trained / self.parameters:.2f} %", self.device, self.seconds
        shared = "1 process" if self.processes == 1 else f"{self.processes} processes"
        shared += f", cut up by {self.sharding}" if self.sharding else ""
        holds = f" of {device.memory / GIB:.0f} on {device.name}" if device.memory else ""
        whole = _duration(self.steps * seconds.total)
        return [
            self.title,
            f"tokens per step   at most {self.tokens_per_step:,} = {self.rows} trajectories × {self.length:,} "
            f"(prompt {self.prompt:,}, sampled {self.sampled:,}, instructions {self.instructions:,}; "
            f"context {self.context:,}), and {self.rows * self.prover:,} by the meta-prover",
            f"parameters        {self.parameters:,}, trained {self.trained:,} ({share})",
            *(f"memory per GPU    {size / GIB:8.2f} GiB  {name}" for name, size in self.memory.items()),
            f"memory per GPU    {self.peak / GIB:8.2f} GiB  at the peak{holds} (estimate; {shared})",
            f"time per step     at most {_duration(seconds.total)} on {device.name}: "
            f"rollout {_duration(seconds.rollout)}, meta-prover {_duration(seconds.prover)}, "
            f"update {_duration(seconds.update)} (at {roofline.MATRIX:.0%} of the peak)",
            f"time              at most {whole} for {self.steps} steps, evaluation aside",
        ]


def plan(config: Config, device: Device) -> Plan:
    """The plan of `config` on GPUs like `device`. Raises UserError for a model whose shape cannot be found, and for a
    token budget that the model's context cannot hold."""
    described = shape(config.model)
    context = int(described.get("max_position_embeddings", 0))
    if config.protocol.token_budget > context:
        reason = f"the model's context holds {context} tokens, prompt included"
        raise UserError("protocol.token_budget", config.protocol.token_budget, reason, "Lower the budget.")
    prompt, instructions, forced = _prompt_tokens(config)
    model = _skeleton(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in model.parameters())
    if not config.model.full_finetuning:
        parameters -= trained  # of the base: the adapter comes on top
    trains = "all weights" if config.model.full_finetuning else f"LoRA of rank {config.model.lora.r}"
    kind = ", ".join(filter(None, [config.model.dtype, config.model.quantization]))
    length = min(prompt + config.protocol.token_budget + instructions, context)
    sizes = _Sizes(config, described, parameters, trained, _in_layers(model), length)
    return Plan(
        title=f"{config.algo_label} on {config.env_label}: {config.model.name_or_path}, {kind}, {trains}",
        steps=config.training.steps,
        processes=processes.count(),
        sharding=processes.sharding(),
        rows=config.training.rows,
        prompt=prompt,
        sampled=config.protocol.token_budget,
        instructions=instructions,
        prover=forced * (config.protocol.max_turns + 1) if config.algorithm.needs_values else 0,
        length=length,
        context=context,
        parameters=parameters,
        trained=trained,
        device=device,
        network=sizes.network,
        memory=sizes.memory(device),
        seconds=sizes.seconds(device, prompt, instructions, forced),
    )


@dataclass(frozen=True)
class _Sizes:
    """What memory and time are made of. in_layers: weights of the base's linear layers; length: of a trajectory."""

    config: Config
    described: dict[str, Any]
    parameters: int
    trained: int
    in_layers: int
    length: int

    @property
    def rows(self) -> int:
        """Trajectories per step of one process."""
        return -(-self.config.training.rows // processes.count())

    @property
    def weight(self) -> int:
        """Bytes of a weight that is not packed."""
        return _BYTES[self.config.model.dtype]

    @property
    def base(self) -> int:
        """Bytes of the base's weights."""
        packed = self.in_layers if self.config.model.quantization else 0
        return (self.parameters - packed) * self.weight + round(packed * _NF4)

    @property
    def cache(self) -> int:
        """Bytes of keys and values per token."""
        heads = self.described.get("num_key_value_heads") or self.described["num_attention_heads"]
        return int(self.described["num_hidden_layers"] * 2 * heads * self._head * self.weight)

    @property
    def network(self) -> Network:
        """What a token costs."""
        described, output = self.described, self.described["vocab_size"] * self.described["hidden_size"]
        read = round(self.in_layers * (_NF4 if self.config.model.quantization else self.weight)) + output * self.weight
        layers, heads = described["num_hidden_layers"], described["num_attention_heads"]
        return Network(self.in_layers + output, read, self.cache, layers, layers * heads * self._head)

    @property
    def _head(self) -> int:
        described = self.described
        return int(described.get("head_dim") or described["hidden_size"] // described["num_attention_heads"])

    def memory(self, device: Device) -> dict[str, int]:
        """Bytes by purpose. Activations: per token and layer what a Llama block keeps for its backward pass (about 10
        vectors of the hidden size and 4 of the feed-forward's), with checkpointing one vector and one whole block.
        FSDP and ZeRO-3 cut up what does not depend on the rows."""
        config, weight, described = self.config, self.weight, self.described
        full = config.model.full_finetuning
        trained = weight if full else 4  # adapters are float32
        layers, hidden = described["num_hidden_layers"], described["hidden_size"]
        block = (10 * hidden + 4 * described["intermediate_size"]) * weight
        kept = layers * hidden * weight + block if config.model.gradient_checkpointing else layers * block
        micro = min(config.training.micro_batch_size, self.rows) * self.length
        copies = full and (config.prover.policy == "reference" or config.training.kl > 0)
        parts = processes.count() if processes.sharding() else 1
        cached = min(self.rows, config.engine.max_rows) * self.length * self.cache
        if config.engine.server is not None:
            sampling = {"KV cache": 0}
        elif config.engine.type == "vllm":  # it keeps both while the policy is updated
            wanted, share = self.parameters * weight + cached, round(config.engine.gpu_memory * device.memory)
            sampling = {"vLLM": min(wanted, share) if share else wanted, "KV cache": 0}  # rows wait for one another
        else:
            sampling = {"KV cache": cached}
        return {
            "weights": (self.base + (0 if full else self.trained * trained)) // parts,
            **({"reference": self.parameters * weight // parts} if copies else {}),
            "gradients": self.trained * trained // parts,
            "AdamW": 2 * self.trained * trained // parts,
            **sampling,
            "activations": micro * kept,
            "logits": micro * described["vocab_size"] * (weight + 4),  # and their gradient, or a float32 copy
        }

    def seconds(self, device: Device, prompt: int, instructions: int, forced: int) -> StepTime:
        """The time of a step of reinforcement learning: prompts are read once per group, every row samples its whole
        budget, forced answers branch off each prefix, and the update reads every row forwards and backwards."""
        config = self.config
        training, prover, rows = config.training, config.prover, self.rows
        clock = Clock(self.network, device, config.model.dtype)
        budget, at_once = config.protocol.token_budget, config.engine.max_rows
        known = rows / training.group_size * prompt + rows * instructions
        rollout = clock.reading(known, self.length / 2) + clock.decoding(rows, at_once, budget, self.length / 2)
        asked = rows * (config.protocol.max_turns + 1) if config.algorithm.needs_values else 0
        valuing = clock.reading(asked * forced, self.length)
        if asked and prover.estimator in ("monte_carlo", "auto", "greedy"):
            draws = asked * (1 if prover.estimator == "greedy" else prover.samples)
            valuing += clock.decoding(draws, at_once, prover.max_answer_tokens, self.length)
        passes = 1 + (2 if config.model.full_finetuning else 1)  # forwards; backwards through weights and activations
        passes += config.model.gradient_checkpointing + (training.kl > 0)
        return StepTime(rollout, valuing, clock.reading(rows * self.length, self.length / 2, passes))


def _in_layers(model: Any) -> int:
    """Weights of the base's linear layers, the output layer aside."""
    from torch import nn

    adapters = ("lora_A", "lora_B", "lm_head")
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in adapters)
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _skeleton(config: Config) -> Any:
    """The model without storage, with its adapter."""
    import torch

    with torch.device("meta"):
        model = untrained(config.model)
        return model if config.model.full_finetuning else with_adapter(model, config.model, config.seed)


def _prompt_tokens(config: Config) -> tuple[int, int, int]:
    """Tokens of the longest opening, of a trajectory's instructions, and of one forced answer with its question."""
    prompts = load_prompts(config.env, config.prompts).marked(config.protocol.marked)
    question, answer = _ASSUMED_QUESTION, _ASSUMED_ANSWER
    if not any(on_hub(spec, config.data.sets) for spec in config.data.train + config.data.eval):
        problems = load_problem_sets(config.data, config.training.problems_per_step, config.grading).train
        question = max(len(problem.question) for problem in problems)
        answer = max(len(problem.answer) for problem in problems)
    texts = {name: _tokens(len(text)) + _TEMPLATE_TOKENS for name, text in prompts.texts.items()}
    forcing = {name: texts[name] for name in (FORCE, FORCE_PREFIX)}
    asking = max(size for name, size in texts.items() if name not in {*forcing, CLOSE, HINT, "question", "system"})
    opening = _tokens(question) + texts["question"] + asking + texts.get("system", 0)
    forced = sum(forcing.values()) + _tokens(answer)
    asked = 0 if CLOSE in texts else config.protocol.max_turns - 1  # one free stream is asked once
    return opening, asking * asked, forced


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)
