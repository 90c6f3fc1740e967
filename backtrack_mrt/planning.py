"""What a run will take, from the config alone: tokens per step, parameters, memory. No weights are read.

Estimates are meant for choosing a machine and a batch: activations are within 15 % of what autograd keeps for a Llama;
fragmentation and the framework's own memory (about 1 GiB on a GPU) come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_problem_sets, on_hub
from backtrack_mrt.errors import UserError
from backtrack_mrt.models import shape, with_adapter
from backtrack_mrt.prompting import CLOSE, FORCE, FORCE_PREFIX, HINT, load_prompts

GIB = 2**30
_BYTES = {"float32": 4, "bfloat16": 2}
_CHARACTERS_PER_TOKEN = 3  # of English and LaTeX; large vocabularies reach 4
_TEMPLATE_TOKENS = 12  # of a chat template around one message
_ASSUMED_QUESTION, _ASSUMED_ANSWER = 1500, 30  # characters, where the problems are on the hub


@dataclass(frozen=True)
class Plan:
    """Sizes of one run. Token counts are upper bounds, memory is in bytes."""

    title: str
    rows: int  # trajectories per step
    prompt: int  # tokens of the longest opening
    sampled: int  # tokens the model may sample in one trajectory
    instructions: int  # tokens the environment inserts into one trajectory after the opening
    prover: int  # tokens of the forced answers of one trajectory
    context: int  # tokens the model can hold
    parameters: int
    trained: int
    memory: dict[str, int]

    @property
    def length(self) -> int:
        """Tokens of the longest trajectory; it ends at the latest where the model's context does."""
        return min(self.prompt + self.sampled + self.instructions, self.context)

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
        share = f"{100 * self.trained / self.parameters:.2f} %"
        return [
            self.title,
            f"tokens per step   at most {self.tokens_per_step:,} = {self.rows} trajectories × {self.length:,} "
            f"(prompt {self.prompt:,}, sampled {self.sampled:,}, instructions {self.instructions:,}; "
            f"context {self.context:,}), and {self.rows * self.prover:,} by the meta-prover",
            f"parameters        {self.parameters:,}, trained {self.trained:,} ({share})",
            *(f"memory            {size / GIB:8.2f} GiB  {name}" for name, size in self.memory.items()),
            f"memory            {self.peak / GIB:8.2f} GiB  at the peak (estimate, per process)",
        ]


def plan(config: Config) -> Plan:
    """The plan of `config`. Raises UserError for a model whose shape cannot be found, and for a token budget that the
    model's context cannot hold."""
    described = shape(config.model)
    context = int(described.get("max_position_embeddings", 0))
    if config.protocol.token_budget > context:
        reason = f"the model's context holds {context} tokens, prompt included"
        raise UserError("protocol.token_budget", config.protocol.token_budget, reason, "Lower the budget.")
    prompt, instructions, forced = _prompt_tokens(config)
    model = _skeleton(config, described)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not config.model.full_finetuning:
        parameters -= trained  # of the base: the adapter comes on top
    trains = "all weights" if config.model.full_finetuning else f"LoRA of rank {config.model.lora.r}"
    sizes = Plan(
        title=f"{config.algo} on {config.env}: {config.model.name_or_path}, {config.model.dtype}, {trains}",
        rows=config.training.rows,
        prompt=prompt,
        sampled=config.protocol.token_budget,
        instructions=instructions,
        prover=forced * (config.protocol.max_turns + 1) if config.algorithm.needs_values else 0,
        context=context,
        parameters=parameters,
        trained=trained,
        memory={},
    )
    return Plan(**{**vars(sizes), "memory": _memory(config, described, sizes)})


def _memory(config: Config, described: dict[str, Any], sizes: Plan) -> dict[str, int]:
    """Bytes by purpose. Activations: per token and layer what a Llama block keeps for its backward pass (about 10
    vectors of the hidden size and 4 of the feed-forward's), with checkpointing one vector and one whole block."""
    weight = _BYTES[config.model.dtype]
    trained = weight if config.model.full_finetuning else 4  # adapters are float32
    layers, hidden = described["num_hidden_layers"], described["hidden_size"]
    heads = described["num_attention_heads"]
    head = described.get("head_dim") or hidden // heads
    block = (10 * hidden + 4 * described["intermediate_size"]) * weight
    kept = layers * hidden * weight + block if config.model.gradient_checkpointing else layers * block
    micro = config.training.micro_batch_size * sizes.length
    cached = min(sizes.rows, config.engine.max_rows) * sizes.length
    copies = config.model.full_finetuning and (config.prover.policy == "reference" or config.training.kl > 0)
    return {
        "weights": sizes.parameters * weight + (0 if config.model.full_finetuning else sizes.trained * trained),
        **({"reference": sizes.parameters * weight} if copies else {}),
        "gradients": sizes.trained * trained,
        "AdamW": 2 * sizes.trained * trained,
        "KV cache": cached * layers * 2 * (described.get("num_key_value_heads") or heads) * head * weight,
        "activations": micro * kept,
        "logits": micro * described["vocab_size"] * (weight + 4),  # and their gradient, or a float32 copy
    }


def _skeleton(config: Config, described: dict[str, Any]) -> Any:
    """The model without storage, with its adapter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = AutoConfig.for_model(**{name: value for name, value in described.items() if name != "transformers_version"})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(kind)
        return model if config.model.full_finetuning else with_adapter(model, config.model, config.seed)


def _prompt_tokens(config: Config) -> tuple[int, int, int]:
    """Tokens of the longest opening, of a trajectory's instructions, and of one forced answer with its question."""
    prompts = load_prompts(config.env, config.prompt_style)
    question, answer = _ASSUMED_QUESTION, _ASSUMED_ANSWER
    if not any(on_hub(spec, config.data.sets) for spec in config.data.train + config.data.eval):
        problems = load_problem_sets(config.data, config.training.problems_per_step).train
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
