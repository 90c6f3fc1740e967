"""What `--tune` tries: for every algorithm of a comparison as many settings.

``training.learning_rate 3e-4 1e-3 training.problems_per_step 8 32`` is a grid for all of them; how many settings it has
is everybody's number of trials. ``algorithms.rise.candidates 4 8`` is RISE's alone and adds no trial: its values take
turns over the grid, each as often as the others, paired at random (the same way every time). All combinations of an
algorithm's own values are tried where there are trials enough; else the values of each field take turns by themselves.
A field with more values than there are trials is refused.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from backtrack_mrt import plugins
from backtrack_mrt.config.files import Layer
from backtrack_mrt.config.problems import DataSection
from backtrack_mrt.config.run import Config
from backtrack_mrt.config.schema import FlagWords
from backtrack_mrt.errors import UserError

Grid = Mapping[str, Sequence[str]]  # fields with the values to try, as they were typed

_FIELD = re.compile(r"[a-z_]+(\.[a-z0-9_-]+)+")
_BUDGETS = ("training.sampled_tokens", "training.total_tokens")


@dataclass(frozen=True)
class Trial:
    """A setting that is tried. settings: what was typed, by field. config: with them, on the validation sets."""

    settings: Mapping[str, str]
    config: Config

    def __str__(self) -> str:
        return ", ".join(f"{field.rpartition('.')[2]} {value}" for field, value in self.settings.items())


def read_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """FIELD VALUE VALUE … FIELD VALUE …, as a grid. Raises UserError for a field without values, one that is named
    twice, and one that must be equal for all that is compared."""
    grid: dict[str, list[str]] = {}
    for word in words:
        if not _FIELD.fullmatch(word):
            if not grid:
                raise UserError("--tune", word, "a value without a field", "Write FIELD VALUE VALUE …")
            grid[next(reversed(grid))].append(word)
            continue
        section, _, setting = word.rpartition(".")
        word = f"{section}.{setting.replace('-', '_')}"  # as in every flag; names of algorithms have dashes
        if word in grid:
            raise UserError("--tune", word, "this field is named twice", "Write all of its values behind it once.")
        if not word.startswith(("training.", "algorithms.")) or word in _BUDGETS:
            reason = "what is compared must agree in it"
            raise UserError("--tune", word, reason, "Tune training.FIELD, or algorithms.NAME.SETTING.")
        grid[word] = []
    for field, values in grid.items():
        if not values:
            raise UserError("--tune", field, "no value to try", "Write FIELD VALUE VALUE …")
        refuse_twice(f"--tune {field}", values)
    if grid and all(map(_owner, grid)):
        reason = "only single algorithms have something to try"
        raise UserError("--tune", " ".join(grid), reason, "Name a field of all, such as training.learning_rate.")
    return grid


def refuse_twice(field: str, values: Sequence[object]) -> None:
    """Raises UserError if a value or seed is given twice: it would count twice, and add nothing."""
    if again := [value for place, value in enumerate(values) if value in values[:place]]:
        raise UserError(field, again[0], "it is given twice", "Give each one once.")


def refuse_untried(grid: Grid, trials: int) -> None:
    """Raises UserError for a field of one algorithm with more values than there are trials."""
    for field, values in grid.items():
        if _owner(field) and len(values) > trials:
            reason = f"{len(values)} values, and {trials} trial{'s' if trials > 1 else ''}: some would never be tried"
            remedy = "Give fewer, or more values of a field of all, such as training.learning_rate."
            raise UserError(f"--tune {field}", " ".join(values), reason, remedy)


def refuse_equal(grid: Grid, trials: Sequence[Trial]) -> None:
    """Raises UserError for values of a field that are written differently and mean the same."""
    for field in grid:
        meant = {trial.settings[field]: _meant(trial.config, field) for trial in trials if field in trial.settings}
        refuse_twice(f"--tune {field}", list(meant.values()))


def _meant(config: Config, field: str) -> object:
    section, *_, leaf = field.split(".")
    return getattr(config.algorithm if section == "algorithms" else getattr(config, section), leaf)


def settings_of(grid: Grid, algo: str) -> list[dict[str, str]]:
    """What is tried for an algorithm, one setting per run: as many for each algorithm."""
    own = {field: values for field, values in grid.items() if _owner(field) == plugins.dashed(plugins.label(algo))}
    shared = _combinations({field: values for field, values in grid.items() if _owner(field) is None})
    every = _combinations(own)
    apart = [_combinations({field: values}) for field, values in own.items()]
    draw = random.Random("tune")
    columns = [_turns(some, len(shared), draw) for some in ([every] if len(every) <= len(shared) else apart)]
    for setting, *mine in zip(shared, *columns, strict=True):
        for values in mine:
            setting |= values
    return shared


def _turns(several: Sequence[dict[str, str]], number: int, draw: random.Random) -> list[dict[str, str]]:
    """So many of them, each as often as the others, in an order of their own."""
    turns = list[dict[str, str]]()
    while len(turns) < number:
        again = list(several)
        draw.shuffle(again)
        turns += again
    return turns[:number]


def owners(grid: Grid) -> set[str]:
    """The algorithms that have something of their own to try."""
    return {owner for field in grid if (owner := _owner(field))}


def as_layer(settings: Mapping[str, str]) -> Layer:
    """The settings as a layer over those of the command line."""
    values: dict[str, Any] = {}
    for field, value in settings.items():
        section, *_, leaf = field.split(".")
        section = "algorithm" if section == "algorithms" else section
        values.setdefault(section, {})[leaf] = FlagWords(((value,),))
    said = {f"{section}.{leaf}": f"--tune {section}.{leaf}" for section, leaves in values.items() for leaf in leaves}
    return Layer(values, said)


def as_typed(mistakes: Sequence[UserError], algo: str) -> list[UserError]:
    """What is wrong with an algorithm's trials, by the names that --tune has for its settings; each thing once."""
    found = []
    for told in mistakes:
        field = told.field.replace("--tune algorithm.", f"--tune algorithms.{algo}.")
        found.append(
            UserError(field, told.value, told.reason, told.remedy.replace("'algorithm.", f"'algorithms.{algo}."))
        )
    uneven = [told for told in found if "micro_batch_size" in told.field]
    if len({told.reason for told in uneven}) > 1:  # each would have another number
        reason = "; ".join(dict.fromkeys(told.reason for told in uneven))
        remedy = "Set it to a number that divides all of these."
        found = [told for told in found if told not in uneven]
        found.append(UserError(uneven[0].field, uneven[0].value, reason, remedy))
    return found


def on_validation(config: Config, like: Config, settings: Mapping[str, str]) -> Config:
    """The trial's config: held-out problems are the validation sets, and where an update has other rows than `like`
    has, the steps are as many as leave the number of trajectories as it is (unless they are tried themselves)."""
    training = config.training
    if "training.steps" not in settings:
        steps = max(round(like.training.steps * like.training.rows / training.rows), 1)
        training = training.model_copy(update={"steps": steps})
    return config.model_copy(update={"training": training, "data": validation(config.data)})


def validation(data: DataSection) -> DataSection:
    """The same with the validation sets in the place of those that are reported."""
    return data.model_copy(update={"eval": data.validation, "eval_size": data.validation_size})


def _combinations(grid: Grid) -> list[dict[str, str]]:
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _owner(field: str) -> str | None:
    """The algorithm whose own setting it is; None for a field of all."""
    section, _, rest = field.partition(".")
    return plugins.dashed(rest.rpartition(".")[0]) if section == "algorithms" else None
