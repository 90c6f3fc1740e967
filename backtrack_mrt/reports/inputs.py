"""What there is to report: runs, also unfinished ones, and their trajectories."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.tables import Policy
from backtrack_mrt.policy.files import find_model, hub_file
from backtrack_mrt.reports.archive import TraceSource
from backtrack_mrt.reports.outcomes import summary_of
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import Run, read_run, unfinished_run
from backtrack_mrt.runs.kinds import holds_run, not_finished
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.runs.trace import visible

TOKENIZER = "tokenizer.json"  # without transformers: a tokenizer's words need no more than its file
ORDER = {"evaluation_base": 0, "evaluation_trained": 1}  # then other evaluations, then steps
STEP = re.compile(r"step_0*(\d+)")


def any_run(path: Path) -> Run:
    """The run in a directory, finished or not. Of an unfinished one the summary holds what its evaluations so far say.
    Raises UserError if there is none."""
    if RunDir(path).summary_path.exists():
        return read_run(path)
    if not holds_run(path):
        raise not_finished("RUN", path)
    return unfinished_run(path)


def policies(runs: Mapping[str, Sequence[Run]]) -> list[Policy]:
    """The base, then what each label made of it; without what has not been evaluated yet."""
    first = next(iter(runs.values()))
    sides = [("base", "base", first), *((label, "trained", members) for label, members in runs.items())]
    return [
        Policy(label, [summary_of(run.summary[name]) for run in members], members[0].summary["trained_answers"])
        for label, name, members in sides
        if all(name in run.summary for run in members)
    ]


def sources(runs: Sequence[Run]) -> list[TraceSource]:
    """The trajectories of runs: the base's once per seed, then the trained policies', then those of the steps."""
    several, bases = len(runs) > 1, set[int]()
    evaluations: list[TraceSource] = []
    steps: list[TraceSource] = []
    for run in runs:
        words = words_of(run.path, run.config.model)
        whose = f"{run.label}, seed {run.config.seed}" if several else ""
        files = (run.path / "trajectories").glob("*.jsonl")
        for file in sorted(files, key=lambda file: (ORDER.get(file.stem, len(ORDER)), file.stem)):
            name = file.stem.removeprefix("evaluation_")
            step = STEP.fullmatch(name)
            if name == "base":
                if run.config.seed in bases:
                    continue
                bases.add(run.config.seed)
                label = f"base, seed {run.config.seed}" if several else "base"
            else:
                told = f"step {step[1]}" if step else name.replace("_", " ")
                if step and name != file.stem:
                    told += " held out"
                label = f"{whose}, {told}" if several else told
            identity = f"{run.path.name}/{file.stem}" if several else file.stem
            scored, phases = read_trajectories(file), run.config.protocol.phases
            source = TraceSource(visible(identity), label, scored, words, run.config.seed, phases=phases)
            (steps if step else evaluations).append(source)
    return evaluations + steps


def words_of(run: Path, section: ModelSection) -> Callable[[int], str] | None:
    """The text of a token id, by the tokenizer saved with the run's model or that of the model it began with; None if
    neither can be had: then ids are shown."""
    from tokenizers import Tokenizer

    path = run / "model" / TOKENIZER
    try:
        if not path.is_file():
            found = Path(find_model(section))
            path = found / TOKENIZER if found.is_dir() else hub_file(section, TOKENIZER)
    except UserError:
        return None
    if not path.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(path))
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))
