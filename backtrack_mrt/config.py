"""Everything a run depends on, as frozen models. A field's description is its ``--help``.

What must be equal across algorithms lives here; `algo` (and its own settings in `algorithm`) is the only difference
between two runs that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    field_validator,
)

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.protocol import EpisodeProtocol

Existing = Literal["refuse", "resume", "overwrite"]  # what to do with a run that is there already
BUDGET_STEPS = 4  # with a budget of sampled tokens training ends after so many times the configured steps at the latest


class Section(BaseModel):
    """A group of fields: frozen, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class LoraSection(Section):
    """The adapter that is trained."""

    r: int = Field(16, gt=0, description="rank of the adapters")
    alpha: int = Field(32, gt=0, description="LoRA's scale is alpha / r")
    targets: list[str] = Field(["all-linear"], min_length=1, description="linear modules that get an adapter")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class ArchitectureSection(Section):
    """The shape of a model, in the words of its config.json."""

    model_type: Literal["llama", "qwen2"] = Field("llama", description="family of the model")
    hidden_size: int = Field(gt=0, description="width of the residual stream")
    intermediate_size: int = Field(gt=0, description="width of the feed-forward layers")
    num_hidden_layers: int = Field(gt=0, description="layers")
    num_attention_heads: int = Field(gt=0, description="query heads")
    num_key_value_heads: int = Field(gt=0, description="key and value heads")
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


class SetSection(Section):
    """Where the rows of a problem set are and what their columns mean."""

    path: list[str] = Field(min_length=1, description="files or hub names OWNER/NAME[/SUBSET][:SPLIT] with its rows")
    question: list[str] | None = Field(
        None, min_length=1, description="columns whose texts make up the question (null: problem, question, …)"
    )
    answer: str | None = Field(None, description="column with the gold answer (null: answer, result, … or solution)")
    extract: Literal["auto", "plain", "hashes", "boxed"] = Field(
        "auto", description=r"where the answer stands: as it is, behind a last ####, in the last \boxed{} (auto: tell)"
    )
    where: dict[str, str] = Field({}, description="only rows with these values in these columns")
    rel_tol: float | None = Field(None, gt=0, lt=1, description="relative tolerance of numeric answers (null: exact)")
    bad_golds: Literal["refuse", "skip"] | None = Field(None, description="as data.bad_golds (null: that one)")
    test: bool = Field(False, description="a test set: refused in data.train")

    @field_validator("path", "question", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class DataSection(Section):
    """Problems to train on and held-out ones."""

    train: list[str] = Field(
        ["signs/train"], min_length=1, description="sets: signs/SPLIT, ready-made (gsm8k), files, OWNER/NAME[:SPLIT]"
    )
    eval: list[str] = Field(["signs/test"], min_length=1, description="held-out sets, named in the same way")
    sets: dict[str, SetSection] = Field(
        {}, description="sets of one's own: names for train and eval, each with path, question, answer, …"
    )
    train_size: int | None = Field(4096, gt=0, description="problems drawn from the training sets (null: all)")
    eval_size: int | None = Field(1024, gt=0, description="problems drawn from the held-out sets (null: all)")
    bad_golds: Literal["refuse", "skip"] = Field(
        "refuse", description="rows whose gold answer cannot be graded: refuse the set, or leave them out and say so"
    )
    v0: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="training problems with V_0 from … to …, as `backtrack-mrt rate` wrote it (null: all)",
    )
    canaries: float = Field(0, ge=0, lt=1, description="share of training problems with a wrong gold: train nothing")
    traces: list[str] = Field([], description="JSONL files of demonstrations for --algo sft (none: generated ones)")
    seed: int = Field(0, ge=0, description="which problems are drawn")


class EngineSection(Section):
    """What samples and scores."""

    type: Literal["hf", "vllm"] = Field("hf", description="what samples: hf (transformers, in this process) or vllm")
    max_rows: int = Field(256, gt=0, description="trajectories decoded side by side")
    server: str | None = Field(None, description="vllm: a server, e.g. http://host:8000 (null: in this process)")
    adapters: str | None = Field(
        None, description="vllm server: directory that both machines see (null: the server runs on this machine)"
    )
    context_length: int | None = Field(None, gt=0, description="vllm in this process: longest row (null: the model's)")
    gpu_memory: float = Field(
        0.4, gt=0, le=1, description="vllm in this process: share of the GPU's memory, its copy of the weights included"
    )


class ProverSection(Section):
    """The meta-prover: the values V of a trajectory's prefixes."""

    estimator: Literal["likelihood", "monte_carlo", "auto", "greedy", "none"] = Field(
        "likelihood",
        description="how V is estimated (auto: likelihood for golds of one form, monte_carlo for others; none: no V)",
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


class TrainingSection(Section):
    """Updates of the policy."""

    steps: int = Field(32, gt=0, description="updates of the policy")
    sampled_tokens: int | None = Field(
        None, gt=0, description="train until so many tokens were sampled instead of for `steps` (at most 4 times those)"
    )
    first_budget: float = Field(1.0, gt=0, le=1, description="share of protocol.token_budget at first, growing to all")
    problems_per_step: int = Field(32, gt=0, description="problems per update")
    group_size: int = Field(8, gt=0, description="trajectories per problem (G)")
    micro_batch_size: int = Field(64, gt=0, description="trajectories per forward-backward pass")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    lr_schedule: Literal["constant", "cosine", "linear"] = Field("cosine", description="after the warm-up")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient clipping")
    temperature: float = Field(1.0, gt=0, description="sampling temperature in training")
    loss: Literal["grpo", "dapo"] = Field("dapo", description="averages over tokens (dapo) or trajectories (grpo)")
    clip: float = Field(0.2, gt=0, description="PPO clip range ε")
    importance_cap: float = Field(
        3.0, ge=1, description="largest importance weight of a token where the engine's logprobs are not the trainer's"
    )
    kl: float = Field(0.0, ge=0, description="weight β of the KL to the reference")
    saved_rollouts: int = Field(16, ge=0, description="trajectories of every step that are kept in the run directory")
    save_every: int = Field(0, ge=0, description="steps between checkpoints (0: only at the end)")
    keep_checkpoints: int = Field(2, ge=1, description="how many checkpoints stay, the newest ones")

    @property
    def most_steps(self) -> int:
        """Updates after which training ends, whatever is left of a budget of sampled tokens."""
        return self.steps * (1 if self.sampled_tokens is None else BUDGET_STEPS)

    @property
    def rows(self) -> int:
        """Trajectories per update."""
        return self.problems_per_step * self.group_size


class GradingSection(Section):
    """What training pays for. Evaluation and `backtrack-mrt grade` count every answer that equals the gold."""

    forms: Literal["numeral", "equivalent"] = Field(
        "numeral", description="where the gold is a numeral: numerals only (not 16-14 for 2), or whatever equals it"
    )


class EvaluationSection(Section):
    """What held-out problems are asked before and after training."""

    every: int = Field(0, ge=0, description="evaluate also after every so many updates (0: only before and after)")
    samples: int = Field(1, gt=0, description="trajectories per held-out problem")
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    extra_revisions: float = Field(2.0, ge=1, description="also report at this multiple of the trained revision limit")
    budgets: list[PositiveFloat] = Field(
        [0.25, 0.5, 1.0, 2.0], description="report regret at these multiples of protocol.token_budget"
    )
    extra_rounds: list[PositiveInt] = Field(
        [], description="also evaluate under budget forcing: checks asked for when the model would stop, e.g. 2 4 6 8"
    )
    linearised_revisions: float = Field(
        0, ge=0, description="also evaluate at this multiple of the trained revisions in a sliding window (0: do not)"
    )
    window: int = Field(6, gt=0, description="last turns that the model sees in the sliding window")
    forced_answers: int = Field(0, ge=0, description="also force so many answers after each turn, and vote (0: do not)")


class Config(Section):
    """One run."""

    algo: str = Field("mrt-rl", description="algorithm: its name, or your own file ./NAME.py")
    env: str = Field("backtrack", description="episode protocol: its name, or your own file ./NAME.py")
    prompts: str = Field("terse", description="prompts of the protocol: a style, or your own folder ./NAME")
    algorithm: SerializeAsAny[Algorithm] = Field(description="settings of the algorithm")
    protocol: SerializeAsAny[EpisodeProtocol] = Field(description="settings of the protocol")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    engine: EngineSection = EngineSection()
    prover: ProverSection = ProverSection()
    training: TrainingSection = TrainingSection()
    grading: GradingSection = GradingSection()
    evaluation: EvaluationSection = EvaluationSection()
    seed: int = Field(0, ge=0, lt=1 << 32, description="seed of sampling and initialisation")
    output_dir: str | None = Field(None, description="run directory (null: runs/<env>-<algo>-seed<seed>)")
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field([], description="trackers of the metrics")

    @property
    def algo_label(self) -> str:
        """The algorithm's name in titles and folder names."""
        return plugins.label(self.algo)

    @property
    def env_label(self) -> str:
        """The protocol's name in titles and folder names."""
        return plugins.label(self.env)

    @property
    def sources(self) -> dict[str, plugins.PluginSource]:
        """The user's own files among the plug-ins, by the field that names them."""
        named = {"algo": self.algo, "env": self.env, "prompts": self.prompts}
        return {field: plugins.source_of(name, field) for field, name in named.items() if plugins.is_path(name)}

    @property
    def run_path(self) -> Path:
        """The run directory."""
        return Path(self.output_dir or f"runs/{self.env_label}-{self.algo_label}-seed{self.seed}")

    @property
    def rows_per_update(self) -> int:
        """Trajectories of one update of the algorithm's trainer."""
        return self.training.rows if self.algorithm.loss == "rl" else self.training.problems_per_step

    def protocol_at(self, done: float) -> EpisodeProtocol:
        """The protocol of training rollouts after the share `done` of training: the token budget grows linearly."""
        share = self.training.first_budget + (1 - self.training.first_budget) * min(done, 1.0)
        return self.protocol.model_copy(update={"token_budget": max(round(share * self.protocol.token_budget), 1)})

    def resolved(self) -> dict[str, Any]:
        """The config as plain data, ready for YAML. The user's own files are named by the copies that a run keeps of
        them, and so by their contents: wherever a file is, the same file is the same setting."""
        return self.model_dump(mode="json") | {field: source.place for field, source in self.sources.items()}


@dataclass(frozen=True)
class RunRequest:
    """A config and what to do with it. The options are no part of the config: they are not saved with the run."""

    config: Config
    existing: Existing = "refuse"
    accept_changes: bool = False  # of the config, when resuming
    dry_run: str | None = None  # the device to plan for
    compare: tuple[str, ...] = ()  # further algorithms, see `comparison_requests`
    seeds: tuple[int, ...] = ()
