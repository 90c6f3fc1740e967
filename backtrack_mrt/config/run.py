"""One run: all that it depends on, as a frozen model.

What must be equal across algorithms lives here; `algo` (and its own settings in `algorithm`) is the only difference
between two runs that are compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm, Valued
from backtrack_mrt.config.model import EngineSection, ModelSection, ProverSection
from backtrack_mrt.config.problems import DataSection
from backtrack_mrt.config.section import Section
from backtrack_mrt.config.training import EvaluationSection, TrainingSection
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import Math
from backtrack_mrt.protocol import EpisodeProtocol

Existing = Literal["refuse", "resume", "overwrite"]  # what to do with a run that is there already
Ledger = Literal["sampled", "total"]  # which tokens are counted: those that were sampled, or all
TUNING_SEED = 10_000  # far from the seeds that people give


class Config(Section):
    """One run."""

    algo: str = Field("mrt-rl", description="algorithm: its name, or your own file ./NAME.py")
    env: str = Field("backtrack", description="episode protocol: its name, or your own file ./NAME.py")
    grader: str = Field("math", description="what judges answers: its name, or your own file ./NAME.py")
    prompts: str = Field("terse", description="prompts of the protocol: a style, or your own folder ./NAME")
    algorithm: SerializeAsAny[Algorithm] = Field(description="settings of the algorithm")
    protocol: SerializeAsAny[EpisodeProtocol] = Field(description="settings of the protocol")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    engine: EngineSection = EngineSection()
    prover: ProverSection = ProverSection()
    training: TrainingSection = TrainingSection()
    grading: SerializeAsAny[Grader] = Field(default_factory=Math, description="settings of the grader")
    evaluation: EvaluationSection = EvaluationSection()
    seed: int = Field(0, ge=0, lt=1 << 32, description="seed of sampling and initialisation")
    output_dir: str | None = Field(
        None, description="run directory (null: runs/<model>-<env>-<grader>-<algo>-seed<seed>)"
    )
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field([], description="trackers of the metrics")

    @model_validator(mode="after")
    def _marked(self) -> Self:
        """The protocol finds answers where the grader has them, unless it says otherwise."""
        if isinstance(self.protocol, EpisodeProtocol) and isinstance(self.grading, Grader):  # not where one is unknown
            vars(self)["protocol"] = self.protocol.marked_by(self.grading.marker)
        return self

    @property
    def algo_label(self) -> str:
        """The algorithm's name in titles and folder names."""
        return plugins.label(self.algo)

    @property
    def env_label(self) -> str:
        """The protocol's name in titles and folder names."""
        return plugins.label(self.env)

    @property
    def task_label(self) -> str:
        """What is learnt, in folder names: the model, the protocol and the grader, of which the defaults of the first
        and the last are left out. So runs of several tasks or models lie side by side without a name from the user."""
        place = Path(self.model.name_or_path)
        model = place.parent.name if place.name == "model" else place.name  # RUN/model is what RUN has trained
        parts = [] if self.model.name_or_path == ModelSection().name_or_path else [model]
        parts.append(self.env_label)
        if self.grader not in (Config.model_fields["grader"].default, self.env):  # an environment may be its own grader
            parts.append(plugins.label(self.grader))
        return "-".join(filter(None, parts))

    @property
    def sources(self) -> dict[str, plugins.PluginSource]:
        """The user's own files among the plug-ins, by the field that names them."""
        named = {"algo": self.algo, "env": self.env, "grader": self.grader, "prompts": self.prompts}
        named |= {"prover.estimator": self.prover.estimator}
        return {field: plugins.source_of(name, field) for field, name in named.items() if plugins.is_path(name)}

    @property
    def run_path(self) -> Path:
        """The run directory."""
        own = f"runs/{self.task_label}-{self.algo_label}-seed{self.seed}"
        return Path(os.path.expanduser(self.output_dir or own))

    @property
    def rows_per_update(self) -> int:
        """Trajectories of one update of the algorithm's trainer."""
        return self.training.rows if self.algorithm.loss == "rl" else self.training.problems_per_step

    @property
    def updates_per_step(self) -> int:
        """Updates on one batch of rollouts. Of self-training's rows each batch is another part."""
        return self.training.epochs if self.algorithm.loss == "rl" else 1

    @property
    def answer_weight(self) -> float:
        """The weight β of the forced answers that are trained along; 0 for algorithms without values, and where right
        answers cannot be listed."""
        return self.algorithm.answer_weight if isinstance(self.algorithm, Valued) and self.grading.listed else 0.0

    def protocol_at(self, done: float) -> EpisodeProtocol:
        """The protocol of training rollouts after the share `done` of training, with the token budget of then."""
        budget = round(self.training.budget_share(done) * self.protocol.token_budget)
        return self.protocol.model_copy(update={"token_budget": max(budget, 1)})

    def resolved(self) -> dict[str, Any]:
        """The config as plain data, ready for YAML. The user's own files are named by the copies that a run keeps of
        them, and so by their contents: wherever a file is, the same file is the same setting."""
        plain = self.model_dump(mode="json")
        for field, source in self.sources.items():
            section, _, name = field.rpartition(".")
            (plain[section] if section else plain)[name] = source.place
        return plain


@dataclass(frozen=True)
class RunRequest:
    """A config and what to do with it. The options are no part of the config: they are not saved with the run."""

    config: Config
    existing: Existing = "refuse"
    accept_changes: bool = False  # of the config, when resuming
    dry_run: str | None = None  # the device to plan for
    compare: tuple[str, ...] = ()  # further algorithms, see `comparison_requests`
    seeds: tuple[int, ...] = ()
    tune: tuple[str, ...] = ()  # what is tried before, see `backtrack_mrt.config.trials`
    tune_seeds: tuple[int, ...] = (TUNING_SEED,)
    equal: tuple[Ledger, ...] = ()  # the ledgers in which the others get as many tokens as the first; see `compare`
