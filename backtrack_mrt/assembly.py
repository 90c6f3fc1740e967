"""Put the parts of a run together from its config: model, chat, engine, grader, meta-prover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backtrack_mrt.chat import ChatFormat
from backtrack_mrt.config import Config, ProverSection
from backtrack_mrt.dialogue import Dialogue
from backtrack_mrt.engines.base import Engine
from backtrack_mrt.engines.hf import HFEngine
from backtrack_mrt.grading import Grader
from backtrack_mrt.models import frozen_copy, load_policy
from backtrack_mrt.prompting import load_prompts
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.prover import LikelihoodProver, MetaProver, SampledProver
from backtrack_mrt.rollout import Collector


@dataclass(frozen=True)
class Assembly:
    """The parts of a run. `model` is what the trainer updates and what the engine samples from."""

    config: Config
    model: Any
    tokenizer: Any
    dialogue: Dialogue
    engine: Engine
    grader: Grader

    def prover(self, section: ProverSection | None = None) -> MetaProver:
        """The meta-prover of the config, or of another `section`."""
        section = section or self.config.prover
        if section.estimator == "likelihood":
            return LikelihoodProver(self.dialogue, self.engine, section.policy)
        greedy = section.estimator == "greedy"
        return SampledProver(
            self.dialogue,
            self.engine,
            section.policy,
            grader=self.grader,
            samples=1 if greedy else section.samples,
            temperature=0.0 if greedy else 1.0,
            max_answer_tokens=section.max_answer_tokens,
            seed=self.config.seed,
        )

    def collector(self, protocol: EpisodeProtocol, with_values: bool) -> Collector:
        """Rollouts under `protocol`, with the meta-prover's values or without."""
        prover = self.prover() if with_values else None
        config = self.config
        return Collector(
            protocol, self.dialogue, self.engine, self.grader, prover, config.engine.max_rows, config.data.rel_tol
        )


def assemble(config: Config) -> Assembly:
    """Load and connect everything. Raises UserError for a missing model or one whose chat template cannot be used."""
    prompts = load_prompts(config.env, config.prompt_style)
    model, tokenizer = load_policy(config.model, config.seed)
    dialogue = Dialogue(ChatFormat(tokenizer, prompts.system), prompts)
    needs_copy = config.prover.policy == "reference" and config.model.full_finetuning
    reference = frozen_copy(model) if needs_copy else None
    engine = HFEngine(model, max_rows=config.engine.max_rows, reference_model=reference)
    return Assembly(config, model, tokenizer, dialogue, engine, Grader())
