"""The rules across the fields of a config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from functools import partial

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.config import Config
from backtrack_mrt.config.model import ESTIMATORS, PROVERS
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.hooks import of_its_kind, wrong_value
from backtrack_mrt.protocol import EpisodeProtocol


def _own_rules(config: Config) -> Iterator[UserError]:
    """What the properties of the user's own plug-ins give: other rules go by it."""
    for field, section, base in (
        ("algo", "algorithm", Algorithm),
        ("env", "protocol", EpisodeProtocol),
        ("grader", "grading", Grader),
    ):
        plugin = getattr(config, section, None)
        own = isinstance(plugin, base) and plugins.is_own(type(plugin))  # neither where the class cannot be used
        if own and (wrong := wrong_value(plugin, base)):
            yield UserError(field, getattr(config, field), *wrong)


def _budget_rules(config: Config) -> Iterator[UserError]:
    if config.training.sampled_tokens and config.training.total_tokens:
        reason = "training.sampled_tokens is a budget, too"
        yield UserError("training.total_tokens", config.training.total_tokens, reason, "Give one of the two.")


def _batch_rules(config: Config) -> Iterator[UserError]:
    training, size, problems = config.training, config.data.train_size, config.training.problems_per_step
    if size is not None and size < problems:
        reason = f"the data set is smaller than one batch of {problems} problems"
        remedy = f"Set data.train_size to at least {problems}, or training.problems_per_step to at most {size}."
        yield UserError("data.train_size", size, reason, remedy)
    if training.group_size == 1 and problems % 2 and config.algorithm.loss == "rl":
        reason = "the trainer takes problems two by two where a group is a single trajectory"
        yield UserError("training.problems_per_step", problems, reason, "Set an even number.")
    if training.rows % training.micro_batch_size:
        fitting = max(n for n in range(1, min(training.micro_batch_size, training.rows) + 1) if training.rows % n == 0)
        batch = f"the batch of {problems} problems × group size {training.group_size} = {training.rows} trajectories"
        remedy = f"Set training.micro_batch_size to {fitting}, or change problems_per_step or group_size."
        reason = f"{batch} is not divisible by it"
        yield UserError("training.micro_batch_size", training.micro_batch_size, reason, remedy)


def _algorithm_rules(config: Config) -> Iterator[UserError]:
    if config.algorithm.asks_prover and config.prover.estimator == "none":
        reason = f"{config.algo} needs the values of a meta-prover"
        yield UserError("prover.estimator", "none", reason, "Set it to likelihood, or choose grpo.")
    if config.algorithm.needs_critic and not config.algorithm.needs_values:
        reason = "its critic (needs_critic) is made of values, and it says that it needs none (needs_values)"
        yield UserError("algo", config.algo, reason, "Set needs_values to True in its class.")
    answers, group_size = config.protocol.max_answers, config.training.group_size
    if config.algorithm.needs_values and not config.algorithm.asks_prover and answers < 2:
        reason = f"{config.algo} takes the grades of answers on the way for values, and there is only one, at the end"
        remedy = "Set algorithm.values to prover, or choose another protocol, such as backtrack."
        yield UserError("env", config.env_label, reason, remedy)
    objection = config.algorithm.objection(max_answers=answers, group_size=group_size)
    if objection := of_its_kind("algo", config.algorithm, "objection", objection):
        yield UserError("algo", config.algo, objection, "Change that setting, or choose another algorithm.")


def _asynchronous_rules(config: Config) -> Iterator[UserError]:
    if not config.training.asynchronous:
        return
    field, remedy = "training.asynchronous", "leave this off."
    if config.algorithm.loss != "rl":
        reason = f"{config.algo} fits the policy to what was collected before, and samples nothing meanwhile"
        yield UserError(field, True, reason, f"Choose mrt-rl, or {remedy}")
    if config.engine.server is None:
        reason = "in this process nothing can be sampled during an update: hf shares the weights, vllm the device"
        yield UserError(field, True, reason, f"Start a server and name it in engine.server, or {remedy}")


def _forcing_rules(config: Config) -> Iterator[UserError]:
    rounds, protocol = config.evaluation.extra_rounds, config.protocol
    if any(protocol.persistent(n) in (None, protocol) for n in rounds):
        reason = f"the protocol {config.env_label} has no budget forcing: its end cannot be put off"
        remedy = "Leave it out, or choose an --env that has it: backtrack, inline, retry, open-ended."
        yield UserError("evaluation.extra_rounds", rounds, reason, remedy)


GENERATED = ("signs/", "countdown/", "choice/", "words/", "programs/")  # sets without an end: `data.loading.TASKS`


def _size_rules(part: str, config: Config) -> Iterator[UserError]:
    sets, drawn = getattr(config.data, part), getattr(config.data, f"{part}_size")
    if drawn is None and any(spec.startswith(GENERATED) for spec in sets):
        reason = "generated problems have no end, so their number must be given"
        yield UserError(f"data.{part}_size", None, reason, "Set it to a number of problems.")


def _engine_rules(config: Config) -> Iterator[UserError]:
    engine, model, vllm = config.engine, config.model, config.engine.type == "vllm"
    if engine.server is not None and not vllm:
        reason = f"engine.type is {engine.type!r}, which has no server"
        yield UserError("engine.server", engine.server, reason, "Set engine.type to vllm, or leave this out.")
    addresses = [url.rstrip("/") for url in engine.server or ()]
    if twice := [url for number, url in enumerate(addresses) if url in addresses[:number]]:
        yield UserError("engine.server", twice[0], "it is named twice", "Name each server once.")
    if engine.sleep and (not vllm or engine.server is not None):
        reason = "only vLLM in this process holds memory that an update could use"
        yield UserError("engine.sleep", True, reason, "Leave it out, or set engine.type to vllm without engine.server.")
    if engine.merged and (not vllm or engine.server is not None or model.full_finetuning):
        reason = "only vLLM in this process takes weights with a merged adapter"
        remedy = "Leave it out, or train an adapter with engine.type vllm without engine.server."
        yield UserError("engine.merged", True, reason, remedy)
    if vllm and engine.server is None and model.quantization is not None:
        reason = "vLLM in this process takes the weights from the trained module, where they are packed"
        yield UserError("model.quantization", model.quantization, reason, "Leave it out, or use a server.")
    if vllm and model.full_finetuning and config.prover.policy == "reference":
        reason = "vLLM holds one set of weights, and all of them are trained"
        yield UserError("prover.policy", "reference", reason, "Train an adapter, or set engine.type to hf.")
    if vllm and not model.full_finetuning and model.lora.r > 512:
        yield UserError("model.lora.r", model.lora.r, "vLLM takes adapters up to rank 512", "Lower it, or use hf.")


def _prover_rules(config: Config) -> Iterator[UserError]:
    prover = config.prover
    if plugins.is_path(prover.estimator):
        plugins.read_source(prover.estimator, "prover.estimator")
    elif prover.estimator not in (known := [*ESTIMATORS, *plugins.names(PROVERS)]):
        yield UserError("prover.estimator", prover.estimator, "unknown name", did_you_mean(prover.estimator, known))
    if prover.estimator in ("likelihood", "auto"):
        for name in ("temperature", "top_p"):
            if (value := getattr(prover, name)) != 1:
                reason = f"the {prover.estimator} estimator is about the policy as it is, at 1"
                remedy = "Leave it at 1, or set prover.estimator to monte_carlo."
                yield UserError(f"prover.{name}", value, reason, remedy)


def _adapter_rules(config: Config) -> Iterator[UserError]:
    if config.model.quantization and config.model.full_finetuning:
        reason = "weights in 4 bits cannot be trained, only an adapter on top of them"
        yield UserError("model.quantization", config.model.quantization, reason, "Leave out one of the two settings.")


RULES = (partial(_size_rules, "eval"), _adapter_rules, _engine_rules, _forcing_rules, _prover_rules)
# What concerns training alone:
TRAINING_RULES = (
    _budget_rules,
    _batch_rules,
    _algorithm_rules,
    _asynchronous_rules,
    partial(_size_rules, "train"),
    partial(_size_rules, "validation"),
)


def broken_rules(config: Config, training: bool = True, incomplete: bool = False) -> list[UserError]:
    """The mistakes of `config` across its fields, which they name by their dotted names.

    training: also those that concern training alone: an evaluation needs no batch that comes out even, and no training
    set. incomplete: fields are missing from `config`; what needs one of them cannot be told."""
    rules = (*TRAINING_RULES, *RULES) if training else RULES
    with plugins.failures_told():
        return _broken((_own_rules,), config, incomplete) or _broken(rules, config, incomplete)


def _broken(
    rules: Iterable[Callable[[Config], Iterator[UserError]]], config: Config, incomplete: bool
) -> list[UserError]:
    broken: list[UserError] = []
    for rule in rules:
        with suppress(AttributeError) if incomplete else nullcontext():
            broken.extend(rule(config))
    return broken
