"""The card of a trained model, or of one that was exported: README.md beside its weights, in the form of the hub.

What TRL and peft leave there is a form to fill in; this card says what the run knows. Names and model text stand in
code, which they can neither end nor mark up.
"""

from __future__ import annotations

import platform
import re
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from backtrack_mrt import __version__
from backtrack_mrt.config import Config, ModelSection
from backtrack_mrt.config.yaml_text import as_yaml
from backtrack_mrt.data.catalogue import find_set
from backtrack_mrt.data.files import is_local
from backtrack_mrt.data.loading import ProblemSets, is_task
from backtrack_mrt.data.sources import HUB
from backtrack_mrt.evaluation.metrics.turns import answers
from backtrack_mrt.evaluation.tables import RunResult, as_markdown
from backtrack_mrt.policy.files import EMBEDDED, find_model, folder_of, is_adapter, lineage
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.durable import CARD
from backtrack_mrt.runs.processes import main_only
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.runs.trace import render_trace, visible
from backtrack_mrt.types import Scored, TokenLedger

SETTINGS = ("algo", "algorithm", "env", "prompts", "protocol", "training", "prover", "seed")  # of config.yaml
PACKAGES = ("torch", "transformers", "trl", "peft")
ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

folder = "PATH/OF/THIS/FOLDER"
model = AutoPeftModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
"""
STACKED = """\
from backtrack_mrt.config import ModelSection
from backtrack_mrt.policy.models import load_policy

folder = "PATH/OF/THIS/FOLDER"  # an adapter on a model that has one itself: that one is merged first
model, tokenizer = load_policy(ModelSection(name_or_path=folder), seed=0)
"""
WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "PATH/OF/THIS/FOLDER"
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
"""

UNKNOWN = f"""\
# {{name}}

Written by `backtrack-mrt export`. Nothing was said about the model that it was made of.

## Loading

```python
{WHOLE}```
"""
PATH = re.compile(r"(?<![\w/:.~$)\]-])(?:~?/[\w.@+~-]+){2,}/?")  # absolute, of two parts or more; no address


@main_only
def write_cards(
    run: RunDir, config: Config, problems: ProblemSets, training: TokenLedger, result: RunResult | None = None
) -> None:
    """Beside the trained model; without a result also beside its checkpoints, in place of what lies there."""
    checkpoints = [] if result else [path.parent for path in run.checkpoints.rglob(CARD)]
    for folder in (run.model, *checkpoints):
        model_card(run, config, problems, training, result).save(folder / CARD)


def model_card(
    run: RunDir, config: Config, problems: ProblemSets, training: TokenLedger, result: RunResult | None = None
) -> ModelCard:
    """What was trained from what, on what, at what cost, with what result, and how to load it."""
    section = config.model
    adapter = not section.full_finetuning
    data = ModelCardData(
        base_model=hub_base(section),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["backtrack_mrt", config.algo_label, f"env:{config.env_label}", *(["lora"] if adapter else [])],
        datasets=hub_datasets(config) or None,
    )
    what = "A LoRA adapter of" if adapter else "All weights, trained from"
    base = (
        "a tiny model that comes with backtrack_mrt" if section.name_or_path in EMBEDDED else code(named_base(section))
    )
    stacked = adapter and is_adapter(folder_of(section.name_or_path))
    parts = [
        f"# {code(config.algo_label)} on {code(config.env_label)}, seed {config.seed}",
        f"{what} {base}, trained to correct itself with `backtrack_mrt`: algorithm {code(config.algo_label)} "
        f"({config.algorithm.summary}), protocol {code(config.env_label)} ({config.protocol.summary}).",
        f"## Results\n\n{_results(config, problems, result)}",
        f"## Loading\n\n```python\n{STACKED if stacked else ADAPTER if adapter else WHOLE}```\n\n"
        "`backtrack-mrt play FOLDER --watch` shows it solving problems turn by "
        "turn, and `backtrack-mrt evaluate FOLDER` measures it; both take the settings below as a config. Without the "
        "protocol's prompts nothing is known of it.",
        f"## Training\n\n{_training(config, problems, training, result)}",
        f"## Limits\n\n{_limits(config, problems, result)}",
        "## Licence\n\nThe base model and the data sets have licences of their own; what these say of derived models "
        "holds for this one. This card grants nothing.",
        f"## Versions\n\nPython {platform.python_version()}, backtrack-mrt {__version__}, "
        + ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    ]
    if example := _example(run) if result else None:
        trace = render_trace(example.trajectory, example.values)
        parts.insert(
            3, f"A held-out problem, one that it solved in more than one answer if there is any:\n\n{_verbatim(trace)}"
        )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def exported_card(sources: Sequence[ModelSection], name: str) -> str:
    """The card of the exported model `name`. sources: the model, and below an adapter the model that it is merged into,
    and so on. The card beside the model is kept where there is one."""
    own = Path(find_model(sources[0])) / CARD
    text = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else UNKNOWN.format(name=code(name))
    if not text.startswith("---\n"):
        text = f"---\nlibrary_name: transformers\n---\n\n{text}"
    text = text.replace(ADAPTER, WHOLE).replace(STACKED, WHOLE)
    text = text.replace("\nA LoRA adapter of ", "\nA LoRA adapter, merged into ")
    card = ModelCard(without_paths(text, [source.name_or_path for source in sources]), ignore_metadata_errors=True)
    data: Any = card.data
    data.library_name, data.base_model = "transformers", hub_base(sources[0])
    data.tags = [tag for tag in data.get("tags") or () if tag != "lora"] or None
    return str(card)


def without_paths(text: str, known: Sequence[str] = ()) -> str:
    """The text with the last part of every absolute path in it alone; `known` are paths that may look otherwise."""
    for path in sorted((path for path in known if folder_of(path).is_absolute()), key=len, reverse=True):
        text = text.replace(path, Path(path).name)
    return PATH.sub(lambda match: Path(match[0]).name, text)


def code(text: str) -> str:
    """Any text as a span of code, also in a table."""
    text = " ".join(visible(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def named_base(section: ModelSection) -> str:
    """The model below all adapters, as it was named."""
    return lineage(section)[-1].name_or_path


def hub_base(section: ModelSection) -> str | None:
    """The hub's name of the base; None for one that is somewhere else."""
    name = named_base(section)
    return name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists() else None


def hub_datasets(config: Config) -> list[str]:
    """The hub's names of the sets that were trained on."""
    if config.algo == "sft" and config.data.traces:
        return []
    found = []
    for spec in config.data.train:
        if not is_task(spec):
            places = find_set(spec, config.data.sets, "data.train")[1].path
            found += [match["name"] for place in places if not is_local(place) and (match := HUB.fullmatch(place))]
    return list(dict.fromkeys(found))


def _results(config: Config, problems: ProblemSets, result: RunResult | None) -> str:
    if result is None:
        return "Not evaluated."
    how = f"{config.evaluation.samples} per problem, temperature {config.evaluation.temperature:g}"
    return (
        f"{len(problems.eval)} held-out problems of {_sets(config.data.eval)}; trajectories: {how}. In brackets: 95 % "
        "intervals, problems resampled. They say nothing about other seeds of training.\n\n"
        + as_markdown(result.rows()).strip()
    )


def _training(config: Config, problems: ProblemSets, training: TokenLedger, result: RunResult | None) -> str:
    on = f"{len(problems.train)} problems of {_sets(config.data.train)}"
    if config.algo == "sft" and config.data.traces:
        on = f"the demonstrations in {_sets(config.data.traces)}"
    ledgers = result.ledgers if result else {"training": training}
    tokens = [["tokens", "sampled", "inserted by the environment", "of the meta-prover"]]
    tokens += [[part, f"{t.sampled:,}", f"{t.env:,}", f"{t.prover:,}"] for part, t in ledgers.items()]
    resolved = config.resolved()
    told: dict[str, Any] = {name: resolved[name] for name in SETTINGS}
    if not config.model.full_finetuning:
        told["lora"] = resolved["model"]["lora"]
    settings = as_yaml(told)
    return (
        f"On {on}. Held out: {len(problems.eval)} problems of {_sets(config.data.eval)}; their questions and near "
        f"copies of them were left out of training.\n\n{as_markdown(tokens)}\nSettings:\n\n{_verbatim(settings)}"
    )


def _limits(config: Config, problems: ProblemSets, result: RunResult | None) -> str:
    measured = "was measured on nothing" if result is None else f"was measured on {_sets(config.data.eval)} alone"
    few = f", of which there were only {len(problems.eval)}" if result and len(problems.eval) < 500 else ""
    lines = [
        f"The model {measured}{few}, in one protocol and with one style of prompts.",
        "What training did to anything else (other tasks and languages, knowledge, safety) was not looked at.",
        "A step is called wrong by the model itself: it may find errors that are none, and miss those that are.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _example(run: RunDir) -> Scored | None:
    """The shortest right trajectory with more than one answer, if there is one."""
    scored = read_trajectories(run.trajectories / "evaluation_trained.jsonl")
    right = [s for s in scored if s.trajectory.outcome == 1.0]
    revised = [s for s in right if len(answers(s.trajectory)) > 1]
    return min(revised or right or scored, key=lambda s: s.trajectory.sampled_tokens, default=None)


def _sets(specs: list[str]) -> str:
    return ", ".join(map(code, specs))


def _verbatim(text: str) -> str:
    """A block of code that no line of the text can end."""
    return textwrap.indent(text.rstrip("\n"), " " * 4, lambda line: True)
