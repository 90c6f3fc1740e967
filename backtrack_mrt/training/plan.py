"""What a run will take, from the config alone: tokens, parameters, memory per GPU, time per step. No weights are read.

Estimates are meant for choosing a machine and a batch: activations are within 15 % of what autograd keeps for a Llama;
the verdict leaves 1 GiB to the framework and 5 % to fragmentation. How many processes share the run, and
whether the model is cut up over them, is what the launcher says (`backtrack_mrt.runs.processes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets, on_hub
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.dimensions import UNLIMITED, Dimensions, measured
from backtrack_mrt.policy.models import skeleton, with_adapter
from backtrack_mrt.rollouts.prompts import CLOSE, FORCE, FORCE_PREFIX, load_prompts
from backtrack_mrt.runs import processes
from backtrack_mrt.training import roofline
from backtrack_mrt.training.advice import advice
from backtrack_mrt.training.roofline import Device, StepTime
from backtrack_mrt.training.sizes import GIB, Sizes, memory, peak, room, suffices, usable, while_whole

_CHARACTERS_PER_TOKEN = 3  # of English and LaTeX; large vocabularies reach 4
_TEMPLATE_TOKENS = 12  # of a chat template around one message
_ASSUMED_QUESTION, _ASSUMED_ANSWER = 1500, 30  # characters, where the problems are on the hub


@dataclass(frozen=True)
class Plan:
    """Sizes of one run. Token counts and times are upper bounds: every trajectory uses up its budget. Memory is in
    bytes per process, and so per GPU."""

    sizes: Sizes
    device: Device
    prompt: int  # tokens of the longest opening
    instructions: int  # tokens the environment inserts into one trajectory after the opening
    prover: int  # tokens of the forced answers of one trajectory
    context: int  # tokens the model can hold
    memory: dict[str, int]
    room: int | None  # rows whose histories vLLM in the process keeps at once
    seconds: StepTime | None  # of a device whose speed is known

    @property
    def rows(self) -> int:
        """Trajectories per step, of all processes."""
        return self.sizes.config.training.rows

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step's trajectories."""
        return self.rows * self.sizes.length

    @property
    def peak(self) -> int:
        """See `sizes.peak`."""
        return peak(self.sizes, self.device)

    @property
    def fits(self) -> bool:
        """See `sizes.suffices`."""
        return suffices(self.sizes, self.device)

    def verdict(self) -> str:
        """In one line, with what to lower."""
        if not self.device.memory:
            return f"the memory of {self.device.name} is not known"
        taken = f"{self.peak / GIB:.1f} of {usable(self.device) / GIB:.1f} GiB that can be used of {self.device.name}"
        if self.fits:
            return f"fits: {taken}"
        reason = "; vLLM's share (engine.gpu_memory) has no room for the cache of a row" if self.room == 0 else ""
        return f"does not fit: {taken}{reason}. {advice(self.sizes, self.device)}"

    def lines(self) -> list[str]:
        """The plan as text."""
        sizes, config, device, seconds = self.sizes, self.sizes.config, self.device, self.seconds
        kind = ", ".join(filter(None, [config.model.dtype, config.model.quantization]))
        trains = "all weights" if config.model.full_finetuning else f"LoRA of rank {config.model.lora.r}"
        shared = "1 process" if processes.count() == 1 else f"{processes.count()} processes"
        shared += f", cut up by {processes.sharding()}" if processes.sharding() else ""
        holds = f" of {device.memory / GIB:.0f} on {device.name}" if device.memory else ""
        lines = [
            f"{config.algo_label} on {config.env_label}: {config.model.name_or_path}, {kind}, {trains}",
            f"tokens per step   at most {self.tokens_per_step:,} = {self.rows} trajectories × {sizes.length:,} "
            f"(prompt {self.prompt:,}, sampled {config.protocol.token_budget:,}, instructions {self.instructions:,}; "
            f"context {context_in_words(self.context)}), and {self.rows * self.prover:,} by the meta-prover",
            f"parameters        {sizes.parameters:,}, trained {sizes.trained:,} "
            f"({100 * sizes.trained / sizes.parameters:.2f} %)",
            *(f"memory per GPU    {size / GIB:8.2f} GiB  {name}" for name, size in self.memory.items()),
            f"memory per GPU    {self.peak / GIB:8.2f} GiB  at the peak{holds} (estimate; {shared})",
        ]
        if (start := while_whole(sizes, device)) == self.peak:
            lines.append(
                f"at the start      {start / GIB:.2f} GiB: each process has the whole model until training begins"
            )
        if self.room and self.room < sizes.at_once:
            lines.append(
                f"rows              {self.room} of {sizes.at_once} have room for their histories in vLLM: so many "
                "are drawn at a time; for more raise engine.gpu_memory"
            )
        if seconds is None:
            lines.append(f"time              the speed of {device.name} is not known")
        else:
            lines += [
                f"time per step     at most {_duration(seconds.total)} on {device.name}: "
                f"rollout {_duration(seconds.rollout)}, meta-prover {_duration(seconds.prover)}, "
                f"update {_duration(seconds.update)} (at {roofline.ON_GPU.matrix:.0%} of the peak)",
                f"time              at most {_duration(config.training.steps * seconds.total)} for "
                f"{config.training.steps} steps, evaluation aside",
            ]
        return [*lines, f"verdict           {self.verdict()}"]


def context_in_words(context: int) -> str:
    """How many tokens a model holds, in words."""
    return f"{context:,}" if context < UNLIMITED else "without end"


def plan(config: Config, device: Device) -> Plan:
    """The plan of `config` on GPUs like `device`. Raises UserError for a model that would not be loaded, and for a
    token budget that its context, or the engine's, cannot hold."""
    bare = skeleton(config.model)
    model = measured(config.model, bare)
    context = _context(config, model)
    prompt, instructions, forced = _prompt_tokens(config)
    adapted = bare if config.model.full_finetuning else with_adapter(bare, config.model, config.seed)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    length = min(prompt + config.protocol.token_budget + instructions, context)
    sizes = Sizes(config, model, trained, _adapted(adapted), length)
    return Plan(
        sizes,
        device,
        prompt=prompt,
        instructions=instructions,
        prover=forced * (config.protocol.max_turns + 1) if config.algorithm.asks_prover else 0,
        context=context,
        memory=memory(sizes, device),
        room=room(sizes, device),
        seconds=sizes.seconds(device, prompt, instructions, forced) if device.bandwidth else None,
    )


def _context(config: Config, model: Dimensions) -> int:
    """Tokens that a row may have. Raises UserError where the budget alone is more."""
    own = config.engine.context_length if config.engine.type == "vllm" and config.engine.server is None else None
    context = min(model.context, own or model.context)
    if (budget := config.protocol.token_budget) > context:
        whose = "the model's context" if context == model.context else "engine.context_length"
        reason = f"{whose} holds {context} tokens, prompt included"
        raise UserError("protocol.token_budget", budget, reason, "Lower the budget.")
    return context


def _adapted(model: Any) -> tuple[int, int]:
    """Inputs and outputs of the layers that have an adapter, summed up."""
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    return sum(layer.in_features for layer in layers), sum(layer.out_features for layer in layers)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _prompt_tokens(config: Config) -> tuple[int, int, int]:
    """Tokens of the longest opening, of a trajectory's instructions, and of one forced answer with its question."""
    prompts = load_prompts(config.env, config.prompts).marked(config.protocol.marked)
    question, answer = _ASSUMED_QUESTION, _ASSUMED_ANSWER
    if not any(on_hub(spec, config.data.sets) for spec in config.data.train + config.data.eval):
        problems = load_problem_sets(config.data, config.training.problems_per_step, config.grading).train
        question = max(len(problem.question) for problem in problems)
        answer = max(len(problem.answer) for problem in problems)
    texts = {name: _tokens(len(text)) + _TEMPLATE_TOKENS for name, text in prompts.texts.items()}
    asking = max(texts[name] for name in prompts.phases)
    opening = _tokens(question) + texts["question"] + asking + texts.get("system", 0)
    forced = texts[FORCE] + texts[FORCE_PREFIX] + _tokens(answer)
    asked = 0 if CLOSE in texts else config.protocol.max_turns - 1  # one free stream is asked once
    return opening, asking * asked, forced


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)
