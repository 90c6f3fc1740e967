"""``--config auto``: a config for a model that nobody wrote one for, from the model's files and the device.

The files say which protocol the model can speak, the device what it computes in and what samples; then the planner is
asked for the largest micro-batch that fits, recomputing activations only where that is needed. Every choice is told
with its reason. What other files and flags say stands above all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from backtrack_mrt.config import Config, ModelSection
from backtrack_mrt.config.files import read_config
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.dimensions import measured
from backtrack_mrt.policy.files import EMBEDDED, chat_template, find_model, folder_of, shape
from backtrack_mrt.policy.models import skeleton
from backtrack_mrt.training.advice import Changes, advice, smaller, written
from backtrack_mrt.training.plan import context_in_words, plan
from backtrack_mrt.training.roofline import HERE, Device, device, this_device
from backtrack_mrt.training.sizes import GIB, Sizes, peak, suffices, usable

SMALL = 300_000_000  # parameters; below, problems of primary school and the learning rate of SmolLM2
LARGEST = 16  # trajectories of a micro-batch
_NUMINA: Changes = {
    "data.train": ["numina-math"],
    "data.eval": ["math500"],
    "data.train_size": 3968,
    "data.eval_size": 500,
}
_SCHOOL: Changes = {"data.train": ["mawps"], "data.eval": ["asdiv"], "data.train_size": None, "data.bad_golds": "skip"}
_BUDGETS: dict[str, dict[str, int]] = {  # tokens, where the context holds twice as many
    "backtrack": {"token_budget": 1024, "attempt_tokens": 512, "detect_tokens": 256, "backtrack_tokens": 32},
    "inline": {"token_budget": 1024},
    "retry": {"token_budget": 1024, "attempt_tokens": 512},
    "single": {"token_budget": 512, "attempt_tokens": 512},
    "open-ended": {"token_budget": 6144},
}
_SWITCH = re.compile(r"\b(?:enable_)?thinking\b")  # of a hybrid thinker, in its template

Resolve = Callable[[Mapping[str, Any]], Config]  # settings, laid below all that was said → the config


@dataclass
class Derived:
    """Settings, and why each of them was chosen; `about`: for what."""

    about: str
    values: dict[str, Any] = field(default_factory=dict)
    reasons: list[tuple[Changes, str]] = field(default_factory=list)

    def choose(self, changes: Changes, why: str) -> None:
        """Set fields by their dotted names."""
        self.values = with_changes(self.values, changes)
        self.reasons.append((changes, why))

    def lines(self, config: Config) -> list[str]:
        """What was chosen and counts: it is in the config, and nobody said otherwise."""
        found = [self.about]
        for changes, why in self.reasons:
            counted = {name: value for name, value in changes.items() if _in(config, name) == value}
            if counted:
                told = ", ".join(f"{name} {written(value)}" for name, value in counted.items())
                found.append(f"{told}: {why}")
        return found


def derive(said: Mapping[str, Any], resolve: Resolve, planned_for: str | None) -> Derived:
    """Settings for the model that `said` names: what other files and flags say, by section. planned_for: the device of
    ``--dry-run``; None to run here. Raises UserError without a model of one's own, and for one to be run that does not
    fit."""
    model = said.get("model") or {}
    if "name_or_path" not in model:
        remedy = "Name one: --model.name_or_path DIR, or OWNER/NAME of the hub."
        raise UserError("--config", "auto", "no model is named from whose files a config could be derived", remedy)
    known = {name: model[name] for name in ("name_or_path", "revision", "architecture") if name in model}
    section = ModelSection.model_validate(known)
    if section.name_or_path in EMBEDDED:
        remedy = "Leave out --config auto, or name a model of your own."
        raise UserError("--config", "auto", f"{section.name_or_path} is embedded and has a config of its own", remedy)
    if section.architecture is None and not folder_of(section.name_or_path).is_dir():
        find_model(section)
    here = planned_for in (None, HERE)
    on = this_device() if here else device(str(planned_for))
    model_type, model = shape(section)["model_type"], measured(section, skeleton(section))
    context, millions = model.context, f"{model.parameters / 1e6:,.0f} M parameters"
    kind = f"{model_type}, {millions}, context {context_in_words(context)}"
    found = Derived(f"{section.name_or_path}, {kind}, on {on.name}")
    _speaks(found, section, context)
    _computes(found, on, here, served=bool((said.get("engine") or {}).get("server")))
    _learns(found, model.parameters < SMALL, millions)
    first = plan(resolve(with_changes(found.values, _LEAST)), on).sizes
    if found.values["engine"]["type"] == "vllm":
        needed = -(-(first.length + 512) // 1024) * 1024
        found.choose({"engine.context_length": min(needed, context)}, f"rows of {first.length:,}, and answers")
    if not _fits(found, first, resolve, on) and planned_for is None:
        sizes = replace(first, config=resolve(found.values))
        raise UserError("--config", "auto", f"{section.name_or_path} does not fit {on.name}", advice(sizes, on))
    return found


def with_changes(values: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Nested settings with those of dotted names laid over them."""
    found = dict(values)
    for name, value in changes.items():
        section, _, inner = name.partition(".")
        found[section] = with_changes(found.get(section) or {}, {inner: value}) if inner else value
    return found


def _speaks(found: Derived, section: ModelSection, context: int) -> None:
    """Protocol, prompts and problems, by the run that trained the model or by its chat template; budgets, by its
    context."""
    folder = folder_of(section.name_or_path)
    for name, budgets in _BUDGETS.items():
        shrunk = 1
        while 2 * budgets["token_budget"] > context * shrunk and shrunk < budgets["token_budget"]:
            shrunk *= 2
        sizes = {key: max(value // shrunk, 1) for key, value in budgets.items()}
        found.values = with_changes(found.values, {f"protocols.{name}": sizes})
    run = folder.parent / "config.yaml"
    if folder.name == "model" and run.is_file():
        trained = read_config(str(run)).resolved()
        kept = {name: trained[name] for name in ("env", "prompts", "grader")}
        found.choose(kept, f"those of the run that trained it, {folder.parent}, with its problems")
        found.values |= {name: trained[name] for name in ("protocol", "grading", "data")}
        return
    template = chat_template(section) or ""
    env, why = "backtrack", "a chat model"
    if "think>" in template:
        env, why = "open-ended", "its template cuts thoughts out of earlier replies: one message, cut into episodes"
        if _SWITCH.search(template):
            env, why = "backtrack", "a hybrid thinker, which does not think in protocols of several messages"
    found.choose({"env": env, "prompts": "instruct"}, why)
    if env == "open-ended":
        found.choose({"evaluation.extra_revisions": 1.0}, "prolonged thoughts would outgrow most contexts")


def _computes(found: Derived, on: Device, here: bool, served: bool) -> None:
    """dtype, engine and batch, by the device."""
    if on.cpu:
        engine: Changes = {"engine.type": "vllm" if served else "hf"}
        found.choose({"model.dtype": "float32"} | engine, "compiled decoding on a CPU is in float32")
        rows = {"training.problems_per_step": 8, "training.group_size": 8, "training.steps": 32}
        found.choose(rows | {"engine.max_rows": 64}, "small steps: a CPU is slow")
        return
    found.choose({"model.dtype": "bfloat16"}, "a GPU")
    there = not here or served or find_spec("vllm") is not None
    found.choose({"engine.type": "vllm" if there else "hf"}, "the fastest" if there else "vLLM is not installed")
    rows = {"training.problems_per_step": 64, "training.group_size": 4, "training.steps": 62}
    found.choose(rows | {"engine.max_rows": 256}, "the paper's batch of 256, one pass over about 4,000 problems")


def _learns(found: Derived, small: bool, millions: str) -> None:
    """What follows from the number of parameters, and how the paper trains."""
    rank = {"model.lora": {"r": 16, "alpha": 32} if small else {"r": 32, "alpha": 64}}
    found.choose({"training.learning_rate": 3e-4 if small else 1e-5} | rank, millions)
    if "data" not in found.values:
        found.choose(
            (_SCHOOL if small else _NUMINA) | {"data.eval_size": 500},
            f"{millions}; --data.train and --data.eval name your own",
        )
    found.choose({"training.temperature": 0.9, "evaluation.temperature": 0.9, "training.save_every": 10}, "the paper's")
    found.choose({"prover.estimator": "auto"}, "real golds have several forms: those are sampled, the others scored")


def _fits(found: Derived, first: Sizes, resolve: Resolve, on: Device) -> bool:
    """Choose what memory decides: the first of `_options` that fits, else what is nearest to it."""

    def sizes(changes: Changes) -> Sizes:
        return replace(first, config=resolve(with_changes(found.values, changes)))

    fitting = next((c for c in _options(found.values, first, resolve, on) if suffices(sizes(c), on)), None)
    changes = _LEAST if fitting is None else fitting
    taken = f"{peak(sizes(changes), on) / GIB:.1f}"
    room = f" of {usable(on) / GIB:.1f} GiB that can be used" if on.memory else " GiB"
    found.choose(changes, f"the peak is {taken}{room}")
    return fitting is not None


_LEAST: Changes = {"training.micro_batch_size": 1, "model.gradient_checkpointing": True}


def _options(values: Mapping[str, Any], first: Sizes, resolve: Resolve, on: Device) -> Iterator[Changes]:
    """From the fastest to the smallest: with every engine and dtype micro-batches that divide a step, then what the
    planner would lower; weights in 4 bits last of all."""
    rows, largest = first.config.training.rows, 4 if on.cpu else LARGEST
    sizes = [size for size in range(min(largest, rows), 0, -1) if rows % size == 0]
    whole: list[Changes] = [{}]
    if on.cpu:
        whole.append({"model.dtype": "bfloat16"})
    elif (engine := resolve(with_changes(values, _LEAST)).engine).type == "vllm" and engine.server is None:
        whole.append({"engine.type": "hf"})
    packed: list[Changes] = []
    for base in whole:
        for size in sizes:
            for again in (False, True):
                tried = base | {"training.micro_batch_size": size, "model.gradient_checkpointing": again}
                yield tried
        lower = smaller(replace(first, config=resolve(with_changes(values, tried))), on)
        if lower is not None and "model.quantization" in lower:
            packed.append(tried | lower)
        elif lower is not None:
            yield tried | lower
    yield from packed


def _in(config: Config, name: str) -> Any:
    """The value of a dotted field, as plain data."""
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part, None)
    return found.model_dump() if hasattr(found, "model_dump") else found
