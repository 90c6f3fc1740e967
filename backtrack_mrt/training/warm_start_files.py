"""Warm-start data on disk: rollouts that are kept as they come, and the data set with its card.

README.md                       the card, in the form of the hub: `datasets.load_dataset(FOLDER, FORM)` reads it
backtrack.jsonl, correct.jsonl, rise.jsonl, star.jsonl      see `backtrack_mrt.data.demonstrations.files`
config.yaml                     what they were made with
rollouts/<key>.jsonl            what every problem yielded, by model, config and seed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backtrack_mrt.config import Config
from backtrack_mrt.config.yaml_text import as_yaml
from backtrack_mrt.data.demonstrations.attempts import Attempt, read_attempts
from backtrack_mrt.data.demonstrations.files import write_demonstrations
from backtrack_mrt.data.demonstrations.stitching import PROTOCOLS, Pieces, attempts, demonstrations
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.data.order import training_order
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import find_model
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.training.warm_start import WarmStart
from backtrack_mrt.types import Group, Problem

Start = tuple[Problem, list[Attempt]]  # a problem and other models' attempts at it, none to draw own ones

_CARD = """---
configs:
{configs}
---
# Warm-start demonstrations

Stitched by `backtrack-mrt warm-start` of backtrack_mrt from {source}; checks and continuations are of `{model}`,
{branches} drawn for each place. The settings are in `config.yaml`.

{problems} problems; attempts: {right} right, {wrong} wrong, {broken} that the protocol did not accept.

| form | for the protocol | demonstrations |
|---|---|---|
{forms}

A row has a `problem` and `turns`, a turn a `phase` and `spans` of text. A span with `learn: false` carries no loss.
"""


def write_warm_start(config: Config, folder: Path, branches: int, labelled: str | None) -> str:
    """Make the data set in `folder`, going on with what is there of the same model, config and seed. `labelled`: a set
    of other models' attempts to start from. Returns what there is, in a line. Raises UserError."""
    starts = _starts(config, labelled)
    kept = folder / "rollouts" / f"{_key(config, branches, labelled)}.jsonl"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        yields = _read(kept)
        if len(yields) < len(starts):
            _draw(config, branches, starts, kept, yields)
        yields = yields[: len(starts)]
        counts = _write(folder, config, yields)
        card = _card(config, yields, counts, branches, labelled)
        (folder / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise UserError("--out", str(folder), f"cannot be written: {error.strerror}", "Name another folder.") from error
    return f"{folder}: {', '.join(f'{count} {form}' for form, count in counts.items())}, of {len(yields)} problems"


def _starts(config: Config, labelled: str | None) -> list[Start]:
    """The problems in their order of training, or those of the labelled attempts."""
    by_problem: dict[str, Start] = {}
    if labelled:
        for attempt in read_attempts(labelled)[0]:
            by_problem.setdefault(attempt.problem.id, (attempt.problem, []))[1].append(attempt)
    else:
        sets = load_problem_sets(config.data, config.training.problems_per_step, config.grading)
        by_problem = {problem.id: (problem, []) for problem in training_order(sets.train, config)}
    return list(by_problem.values())


def _key(config: Config, branches: int, labelled: str | None) -> str:
    """A name for what is drawn from this model with these settings."""
    settings = config.resolved() | {"output_dir": None, "branches": branches, "labelled": labelled}
    settings["training"]["steps"] = None  # more of them go on with what is there
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    source = Path(find_model(config.model))
    for path in sorted(source.glob("*.safetensors")) if source.is_dir() else ():
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _draw(config: Config, branches: int, starts: Sequence[Start], kept: Path, yields: list[dict[str, Any]]) -> None:
    """Draw what is missing in `yields`, and append it to it and to the file `kept`, some problems at a time."""
    parts, training = assemble(config), config.training
    collector = parts.collector(config.protocol, with_values=False)
    warm = WarmStart(collector, parts.prover(), training.temperature, training.group_size, branches, config.seed)
    chunk = max(config.engine.max_rows // max(warm.attempts, branches), 1)
    with progress(len(starts), "stitch") as bar:
        bar.update(len(yields))
        for at in range(len(yields), len(starts), chunk):
            part = starts[at : at + chunk]
            given = [attempt for _, attempts in part for attempt in attempts]
            groups = warm.labelled(given) if given else warm.draw([problem for problem, _ in part])
            pieces = dict(zip([group.problem.id for group in groups], warm.pieces(groups), strict=True))
            tallies = {group.problem.id: _tally(group) for group in groups}
            for problem, attempts in part:
                tally = tallies.get(problem.id, {"right": 0, "wrong": 0, "broken": len(attempts)})
                row = {"problem": asdict(problem), **tally, "pieces": asdict(pieces.get(problem.id, Pieces()))}
                yields.append(row)
            jsonl.append(kept, yields[at:])
            bar.update(len(part))


def _tally(group: Group) -> dict[str, int]:
    right, wrong = len(attempts(group, True)), len(attempts(group, False))
    return {"right": right, "wrong": wrong, "broken": len(group.members) - right - wrong}


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file; what an interrupted call left of another one is cut off."""
    if not path.exists():
        return []
    jsonl.cut_torn(path)
    return list(jsonl.read(path, dict, what="a problem's yield", field="--out", remedy="Delete the file."))


def _write(folder: Path, config: Config, yields: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The files of all forms and the config. Returns the demonstrations by form."""
    made = [(Problem(**row["problem"]), demonstrations(Pieces(**row["pieces"]))) for row in yields]
    counts = {}
    for form in PROTOCOLS:
        rows = [(problem, forms[form]) for problem, forms in made if form in forms]
        write_demonstrations(folder / f"{form}.jsonl", rows)
        counts[form] = len(rows)
    for source in config.sources.values():
        source.write(folder)
    settings = as_yaml(config.resolved())
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    return counts


def _card(
    config: Config, yields: Sequence[dict[str, Any]], counts: dict[str, int], branches: int, labelled: str | None
) -> str:
    model = config.model.name_or_path
    own = f"{config.training.group_size} attempts of `{model}` at each problem"
    forms = [f"| `{form}` | `{PROTOCOLS[form]}` | {count} |" for form, count in counts.items()]
    files = [f"- config_name: {form}\n  data_files: {form}.jsonl" for form, count in counts.items() if count]
    return _CARD.format(
        configs="\n".join(files),
        source=f"the labelled attempts `{labelled}`" if labelled else own,
        model=model,
        branches=branches,
        problems=len(yields),
        forms="\n".join(forms),
        **{kind: sum(row[kind] for row in yields) for kind in ("right", "wrong", "broken")},
    )
