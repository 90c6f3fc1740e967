"""Settings of the model that is trained, of what samples from it, and of the meta-prover that values what it wrote."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from backtrack_mrt.config.section import Section, SomeTexts


class LoraSection(Section):
    """The adapter that is trained."""

    r: int = Field(16, gt=0, description="rank of the adapters")
    alpha: int = Field(32, gt=0, description="LoRA's scale is alpha / r")
    targets: SomeTexts = Field(["all-linear"], description="linear modules that get an adapter")


class ArchitectureSection(Section):
    """The shape of a model, in the words of its config.json."""

    model_type: Literal["llama", "qwen2", "qwen3", "gemma3_text"] = Field("llama", description="family of the model")
    hidden_size: int = Field(gt=0, description="width of the residual stream")
    intermediate_size: int = Field(gt=0, description="width of the feed-forward layers")
    num_hidden_layers: int = Field(gt=0, description="layers")
    num_attention_heads: int = Field(gt=0, description="query heads")
    num_key_value_heads: int = Field(gt=0, description="key and value heads")
    head_dim: int | None = Field(None, gt=0, description="width of a head (null: hidden_size / num_attention_heads)")
    vocab_size: int = Field(gt=0, description="tokens of the vocabulary")
    max_position_embeddings: int = Field(gt=0, description="context length, in tokens")
    tie_word_embeddings: bool = Field(False, description="whether the output layer is the embedding")


class ModelSection(Section):
    """The model that is trained."""

    name_or_path: str = Field("tiny", description="'tiny' (embedded), a directory, or a hub name")
    revision: str | None = Field(None, description="hub revision")
    eos_token: str | None = Field(
        None, description="the token that ends a message (null: the tokenizer's, or what its chat template writes)"
    )
    thinking: bool | None = Field(
        None, description="whether a hybrid model thinks before it answers (null: where it answers in one message)"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="weights (bfloat16: slower on an old CPU)")
    full_finetuning: bool = Field(False, description="train all weights instead of a LoRA adapter")
    lora: LoraSection = LoraSection()
    quantization: Literal["nf4"] | None = Field(
        None, description="QLoRA: the frozen base in 4 bits (nf4), for less memory and slower steps (null: as it is)"
    )
    gradient_checkpointing: bool = Field(False, description="less memory for about a third more update time")
    architecture: ArchitectureSection | None = Field(
        None, description="the model's shape, so that --dry-run needs none of its files (null: read its config.json)"
    )


class EngineSection(Section):
    """What samples and scores."""

    type: Literal["hf", "vllm"] = Field("hf", description="what samples: hf (transformers, in this process) or vllm")
    max_rows: int = Field(256, gt=0, description="trajectories decoded side by side, at most")
    compiled: bool = Field(
        True,
        description="on a CPU: decode (hf) and update in compiled code, if there is a C compiler (false: by modules)",
    )
    server: SomeTexts | None = Field(
        None, description="vllm: servers that share the rows, http://host:8000 … (null: in this process)"
    )
    adapters: str | None = Field(
        None, description="vllm server: directory that both machines see (null: the server runs on this machine)"
    )
    context_length: int | None = Field(None, gt=0, description="vllm: longest row (null: the model's)")
    gpu_memory: float = Field(
        0.4, gt=0, le=1, description="vllm in this process: share of the GPU's memory, its copy of the weights included"
    )
    sleep: bool = Field(
        False, description="vllm in this process, on a GPU: give back that share during updates (its weights wait)"
    )
    merged: bool | None = Field(
        None,
        description="vllm in this process: merge the adapter into its weights (null: not into 16 bits, which round it)",
    )


ESTIMATORS = ("likelihood", "monte_carlo", "auto", "greedy", "none")  # those of rollouts/prover.py
PROVERS = "backtrack_mrt.provers"  # entry points of others


class ProverSection(Section):
    """The meta-prover: the values V of a trajectory's prefixes."""

    estimator: str = Field(
        "likelihood",
        description="how V is estimated: likelihood, monte_carlo, greedy, auto (likelihood for golds of one form, "
        "monte_carlo for others), none, or your own file ./NAME.py",
    )
    policy: Literal["policy", "reference"] = Field("policy", description="who answers: the policy or the frozen base")
    samples: int = Field(8, gt=0, description="forced answers per value (monte_carlo, auto)")
    temperature: float = Field(1.0, gt=0, description="how forced answers are drawn (monte_carlo)")
    top_p: float = Field(1.0, gt=0, le=1, description="share of the likeliest tokens they are drawn from (monte_carlo)")
    max_answer_tokens: int = Field(64, gt=0, description="longest forced answer (monte_carlo, auto, greedy)")
    suffix: str | None = Field(
        None, description="the words that ask for the answer now (null: those of the prompts, force.md or close.md)"
    )
    calibration: int = Field(
        16, ge=0, description="prefixes on which a run first compares the likelihood with sampled answers (0: do not)"
    )
