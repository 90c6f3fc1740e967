"""Put the parts of a run together from its config: model, chat, engine, grader, meta-prover."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from backtrack_mrt import plugins
from backtrack_mrt.config import Config, ProverSection
from backtrack_mrt.config.model import ESTIMATORS, PROVERS
from backtrack_mrt.errors import Mistakes, UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.hooks import wrong_value
from backtrack_mrt.policy.completions import CompletionsEngine, client, served
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.policy.hf.trial import serving_engine
from backtrack_mrt.policy.models import frozen_copy, load_model, load_tokenizer
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.policy.vllm.remote import ServerEngine
from backtrack_mrt.policy.vllm.servers import Servers
from backtrack_mrt.policy.whole import WholeCopy
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import CLOSE, HINT, Prompts, load_prompts
from backtrack_mrt.rollouts.prover import AutoProver, LikelihoodProver, MetaProver, SampledProver
from backtrack_mrt.rollouts.row_lengths import Reserve
from backtrack_mrt.rollouts.stated import StatedAnswers
from backtrack_mrt.runs import processes
from backtrack_mrt.runs.durable import write_directory


@dataclass(frozen=True)
class Assembly:
    """The parts of a run. `model` is what the trainer updates and what the engine samples from; where a launcher cuts
    it up, the engine samples from `whole`, a copy of it. Training pays by the grader `paying`, evaluation counts by
    `grader`."""

    config: Config
    model: Any
    tokenizer: Any
    dialogue: Dialogue
    engine: Engine
    paying: Grader
    whole: WholeCopy | None = None

    @cached_property
    def grader(self) -> Grader:
        """What evaluation counts by: with the same memory and processes as `paying`."""
        return self.paying.counting()

    def save_policy(self, folder: Path) -> None:
        """The trained policy and its tokenizer: a LoRA adapter, or all weights. All processes call it."""
        if self.whole is not None:
            self.whole.refresh()
        policy = self.whole.copy if self.whole is not None else self.model

        def write(staged: Path) -> None:
            policy.save_pretrained(staged)
            self.tokenizer.save_pretrained(staged)

        if processes.is_main():
            write_directory(folder, write)

    def prover(self, section: ProverSection | None = None, grader: Grader | None = None) -> MetaProver:
        """The meta-prover of the config, or of another `section`; a `grader` other than that of evaluation."""
        section = section or self.config.prover
        _check_begun(section, self.dialogue.prompts, self.config.prompts)
        if section.estimator not in ESTIMATORS:
            own = estimator_of(section)(self.dialogue, self.engine, section.policy)
            if not hasattr(own, "tokens"):
                remedy = "Begin it with super().__init__(dialogue, engine, policy)."
                raise UserError("prover.estimator", section.estimator, "its __init__ leaves out the base's", remedy)
            if wrong := wrong_value(own, MetaProver):
                raise UserError("prover.estimator", section.estimator, *wrong)
            own.grader, own.section = grader or self.grader, section
            return own
        if not self.grader.listed:
            return self.sampled_prover(section, grader)
        if section.estimator == "likelihood":
            return self._likelihood(section)
        sampled = self.sampled_prover(section, grader)
        return AutoProver(self._likelihood(section), sampled) if section.estimator == "auto" else sampled

    @property
    def reserve(self) -> Reserve | None:
        """Tokens of the context that a trajectory leaves free for the config's meta-prover; None without one."""
        return None if self.config.prover.estimator == "none" else self.prover().reserve

    def sampled_prover(
        self,
        section: ProverSection,
        grader: Grader | None = None,
        *,
        helped: bool = True,
        seed: int | None = None,
        on_answers: Callable[[int], None] = lambda answers: None,
    ) -> SampledProver:
        """The meta-prover that samples. helped: with the likelihood as its control variate, where that can be had.
        seed: of its samples (None: the config's). on_answers: told how many answers are newly begun."""
        greedy = section.estimator == "greedy"
        as_it_is = not greedy and section.temperature == section.top_p == 1
        known = self.grader.listed and self.dialogue.prompts.begins_answer and self.engine.scores
        return SampledProver(
            self.dialogue,
            self.engine,
            section.policy,
            grader=grader or self.grader,
            samples=1 if greedy else section.samples,
            temperature=0.0 if greedy else section.temperature,
            top_p=1.0 if greedy else section.top_p,
            max_answer_tokens=section.max_answer_tokens,
            seed=self.config.seed if seed is None else seed,
            likelihood=self._likelihood(section) if helped and as_it_is and known else None,
            on_answers=on_answers,
        )

    def _likelihood(self, section: ProverSection) -> LikelihoodProver:
        return LikelihoodProver(self.dialogue, self.engine, section.policy, self.grader.spellings)

    def collector(self, protocol: EpisodeProtocol, with_values: bool, grader: Grader | None = None) -> Collector:
        """Independent rollouts under `protocol`, with the meta-prover's values (if the config has one) or without;
        graded as in evaluation, or by another `grader`."""
        config, grader = self.config, grader or self.grader
        return Collector(
            protocol,
            self.dialogue,
            self.engine,
            grader,
            self.prover(grader=grader) if with_values and config.prover.estimator != "none" else None,
            config.engine.max_rows,
        )

    def evaluation_collector(self, *, base: bool = False) -> Collector:
        """Independent rollouts with values, also those of the frozen base's meta-prover if they are wanted and can be
        had. base: the policy is the base still, so they are the same."""
        config, collector = self.config, self.collector(self.config.protocol, with_values=True)
        if collector.prover is None or not config.evaluation.frozen_prover:
            return collector
        if base or config.prover.policy == "reference":
            return replace(collector, frozen=collector.prover)
        if config.model.full_finetuning:  # nobody keeps the base
            return collector
        return replace(collector, frozen=self.prover(config.prover.model_copy(update={"policy": "reference"})))

    def training_collector(self) -> Collector:
        """Rollouts as the algorithm wants them, graded as the config pays for them."""
        config, algorithm = self.config, self.config.algorithm
        collector = self.collector(config.protocol, algorithm.asks_prover, self.paying)
        return replace(
            collector,
            prover=StatedAnswers() if algorithm.needs_values and not algorithm.asks_prover else collector.prover,
            collection=algorithm.collection,
            group_size=config.training.group_size,
            max_answer_tokens=config.prover.max_answer_tokens,
        )


def assemble(config: Config, *, training: bool = False) -> Assembly:
    """Load and connect everything; for `training` the prompts must also have what the algorithm needs. Raises UserError
    for that, for a missing model, or one whose chat template cannot be used, and for a grader that cannot work here."""
    prompts, grader = prompts_of(config), config.grading.opened()
    if config.prover.estimator not in ESTIMATORS:
        estimator_of(config.prover)  # a mistake in it must not wait for the model
    _check_prompts(config, prompts, training)
    servers = _reachable(config)
    tokenizer = load_tokenizer(config.model)
    dialogue = dialogue_with(tokenizer, prompts, config.model.thinking)
    if tokenizer.eos_token is None:  # what ends its chat's messages does as well
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(dialogue.chat.eos_id)
    model = load_model(config.model, tokenizer, config.seed)
    full = config.model.full_finetuning
    whole = WholeCopy(model, frozen=servers is None or full) if processes.sharding() else None
    engine = _engine(config, model, servers, whole)
    if whole is not None:
        engine.before_sync = whole.refresh
    return Assembly(config, model, tokenizer, dialogue, engine, grader, whole)


def assemble_served(config: Config, url: str) -> Assembly:
    """The parts around the model that is served at `url`; `config.model` says whose tokenizer it has. Raises UserError
    for a server that cannot be asked, and for one without logprobs where the meta-prover needs them."""
    grader = config.grading.opened()
    tokenizer = load_tokenizer(config.model)
    dialogue = dialogue_with(tokenizer, prompts_of(config), config.model.thinking)
    with closing(client(url, "--server")) as asked:
        bases = [row for row in served(asked) if row.get("parent") is None]
    engine = CompletionsEngine(
        url,
        tokenizer,
        model=config.model.name_or_path if len(bases) > 1 else None,  # the only one, whatever it is called there
        max_rows=min(config.engine.max_rows, 64),
        scoring=config.prover.estimator in ("likelihood", "auto") and config.grading.listed,
    )
    return Assembly(config, None, tokenizer, dialogue, engine, grader)


def served_name(url: str, field: str) -> str:
    """What the server's model is called where it was loaded from: a hub name or a directory. Raises UserError."""
    with closing(client(url, field)) as asked:
        rows = served(asked)
    if not rows:
        raise UserError(field, url, "it does not say what it serves", "Name the model: --model DIR or its hub name.")
    return str(rows[0].get("root") or rows[0]["id"])


def estimator_of(section: ProverSection) -> type[MetaProver]:
    """The class of an estimator that is not built in. Raises UserError."""
    return plugins.load(PROVERS, section.estimator, MetaProver, "prover.estimator")  # type: ignore[type-abstract]


def prompts_of(config: Config) -> Prompts:
    """The run's prompts: with its words for the forced answer, and answers where its grader has them."""
    return load_prompts(config.env, config.prompts).asking(config.prover.suffix).marked(config.protocol.marked)


def _check_prompts(config: Config, prompts: Prompts, training: bool) -> None:
    """All that the settings need and the prompts do not have, told at once."""
    mistakes = Mistakes()
    with mistakes.collected():
        _check_begun(config.prover, prompts, config.prompts)
    if training and config.answer_weight and not prompts.begins_answer:
        reason = f"the prompts {config.prompts!r} begin no answer in force_prefix.md, where the gold could stand"
        mistakes.append(UserError("algorithm.answer_weight", config.answer_weight, reason, "Set it to 0."))
    if training and config.algorithm.collection.hints and HINT not in prompts.texts:
        reason = f"the prompts {config.prompts!r} of {config.env_label} have no {HINT}.md"
        remedy = "Write it, with <<answer>> in it, or leave this off."
        mistakes.append(UserError("algorithm.rationalize", True, reason, remedy))
    mistakes.tell()


def _check_begun(section: ProverSection, prompts: Prompts, style: str) -> None:
    """A gold has a likelihood where it would stand: where the forced answer is begun."""
    if section.estimator in ("likelihood", "auto") and not prompts.begins_answer:
        opening = prompts.marker.opening
        reason = f"the prompts {style!r} do not end in {opening!r} in force_prefix.md, where the gold could stand"
        raise UserError("prover.estimator", section.estimator, reason, "Set it to monte_carlo or greedy.")


def dialogue_with(tokenizer: Any, prompts: Prompts, thinking: bool | None = None) -> Dialogue:
    """The prompts, spoken in the tokenizer's chat; see `ChatFormat`. Raises UserError for a chat template that cannot
    be used."""
    one_message = CLOSE in prompts.texts
    return Dialogue(ChatFormat(tokenizer, prompts.system, one_message=one_message, thinking=thinking), prompts)


def _reachable(config: Config) -> Servers | None:
    """The servers that the config names, if any. Raises UserError for one that cannot be reached, and where vLLM is to
    run in this process and cannot."""
    section = config.engine
    if section.adapters is not None and not os.path.isdir(os.path.expanduser(section.adapters)):
        raise UserError(
            "engine.adapters", section.adapters, "no such directory", "Create it where both machines see it."
        )
    if section.server is not None:
        return Servers(section.server, section.max_rows)
    if section.sleep and not torch.cuda.is_available():
        raise UserError("engine.sleep", True, "vLLM sleeps on GPUs only, and none is here", "Leave it out.")
    if section.type == "vllm" and find_spec("vllm") is None:
        remedy = "Install it (`pip install 'backtrack-mrt[vllm]'`; without a GPU `make .venv-vllm/installed`)."
        raise UserError("engine.type", section.type, "vLLM is not installed", remedy)
    return None


def merges_adapter(config: Config) -> bool:
    """Whether vLLM gets merged weights: by default not where every step would exchange them for the reference's."""
    if config.engine.merged is None:
        return config.model.dtype == "float32" and config.prover.policy == "policy"
    return config.engine.merged


def _engine(config: Config, model: Any, servers: Servers | None, whole: WholeCopy | None) -> Engine:
    section = config.engine
    if servers is not None:
        adapters = Path(os.path.expanduser(section.adapters)) if section.adapters else None
        sent = whole.copy if whole else model
        return ServerEngine(model, servers, max_rows=section.max_rows, adapters=adapters, sent=sent)
    if section.type == "vllm":
        return VLLMEngine(
            model,
            max_rows=section.max_rows,
            context_length=section.context_length,
            gpu_memory=section.gpu_memory,
            sleep=section.sleep,
            merged=merges_adapter(config),
        )
    kind = serving_engine(model, config.model.name_or_path, section.compiled)
    needs_copy = config.prover.policy == "reference" and config.model.full_finetuning
    reference = frozen_copy(model) if needs_copy else None
    return kind(whole.copy if whole else model, max_rows=section.max_rows, reference_model=reference)
