"""Layers of settings: YAML files, one after the other, then the command line. Each value remembers where it was said,
so that a mistake is told with its flag, or its file and line; all mistakes are told at once.

Settings of a plug-in belong to the plug-in that the same layer names (`algorithm` to its `algo`, `protocol` to its
`env`, `grading` to its `grader`); ``algorithms: {mrt-rl: {alpha: 2.0}, grpo: {}}`` (and `protocols`, `gradings`) give
settings for several. Only those of the chosen plug-in become part of the config, so one file serves every ``--algo``;
the others must be right as well."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.config import Config
from backtrack_mrt.config.rules import GENERATED, broken_rules
from backtrack_mrt.config.schema import Anew, Check, FlagWords
from backtrack_mrt.config.yaml_text import YamlReader
from backtrack_mrt.errors import Mistakes, UserError, did_you_mean
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.protocol import EpisodeProtocol

PLUGINS: dict[str, tuple[str, type[BaseModel]]] = {  # by the field that names them: package and base class
    "algo": ("backtrack_mrt.algos", Algorithm),
    "env": ("backtrack_mrt.envs", EpisodeProtocol),
    "grader": ("backtrack_mrt.graders", Grader),
}
SECTIONS = {"algorithm": "algo", "protocol": "env", "grading": "grader"}  # section: the field that names the plug-in
PLUGIN_KEYS = {key for section in SECTIONS for key in (section, f"{section}s")}
PATHS = (*PLUGINS, "prompts")  # fields that may be paths of the user's own files, relative to the file they stand in
DEFAULT_CONFIG = "tiny.yaml"  # where no file is named
MOST_BYTES = 1 << 20  # of one YAML file
_TOLD: set[str] = set()  # notes that this process has told


@dataclass(frozen=True)
class Layer:
    """Settings from one source. `said` has for each dotted name how and where it was said; `mistakes` is what could not
    be read."""

    values: Mapping[str, Any]
    said: Mapping[str, str]
    mistakes: tuple[UserError, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Layer:
        """Settings that were all said at one place."""
        return cls(values, {path: f"{path} ({place})" for path in _paths(values)})

    def below(self, prefix: str, section: str) -> dict[str, str]:
        """What was said at and below `prefix`, as if it had been said of `section`."""
        inside = {path: said for path, said in self.said.items() if f"{path}.".startswith(f"{prefix}.")}
        return {section + path.removeprefix(prefix): said for path, said in inside.items()}


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    root = Path(str(files("backtrack_mrt.configs")))
    return sorted(
        path.relative_to(root).as_posix() for place in ("", "paper") for path in (root / place).glob("*.yaml")
    )


def read_layer(name: str) -> Layer:
    """The layer of a YAML file, or of a shipped config of that name. Raises UserError naming file and line."""
    path = _found(name)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError("--config", name, "too large for settings", "Give a YAML file of at most a megabyte.")
        reader = YamlReader(name, path)
        values = reader.read(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("--config", name, f"cannot be read: {error}", "Give a YAML file in UTF-8.") from error
    named = {key: values[key] for key in PATHS if isinstance(values.get(key), str)}
    own: dict[str, Any] = {key: plugins.anchored(name, path.parent) for key, name in named.items()}
    prover = values.get("prover")
    if isinstance(prover, dict) and isinstance(prover.get("estimator"), str):
        own["prover"] = prover | {"estimator": plugins.anchored(prover["estimator"], path.parent)}
    return Layer(values | own, reader.said, tuple(reader.mistakes))


def _found(name: str) -> Path:
    own = Path(os.path.expanduser(name))
    if own.is_file():
        return own
    if own.is_dir():
        raise UserError("--config", name, "is a directory", "Give a YAML file, such as the directory's config.yaml.")
    shipped = name.removeprefix("configs/").removesuffix(".yaml") + ".yaml"
    if shipped in shipped_configs():
        return Path(str(files("backtrack_mrt.configs") / shipped))
    raise UserError("--config", name, "no such file, and no shipped config", did_you_mean(name, shipped_configs()))


def read_config(path: str) -> Config:
    """The config saved in a YAML file. Raises UserError for whatever is wrong in it."""
    return resolve([read_layer(path)])


def resolve(layers: Sequence[Layer], training: bool = True) -> Config:
    """The layers merged, left to right, and validated. Raises UserError for all mistakes at once.

    training: also by the rules that concern training alone. An evaluation needs no batch that comes out even, and no
    training set: the commands that do not train say False."""
    merged = Merged(layers)
    config = merged.config(training)
    for note in merged.notes:
        if note not in _TOLD:
            _TOLD.add(note)
            print(f"note: {note}", file=sys.stderr)
    return config


class Merged:
    """Layers laid over each other as far as they can be understood, and all that is wrong with them.

    `values` are those of the fields of `schema`, which is `Config` with the classes of the chosen plug-ins."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        layers = [part for layer in layers for part in _with_its_own(layer)]
        self.check = Check({}, mistakes=Mistakes(mistake for layer in layers for mistake in layer.mistakes))
        self.chosen = {field: self._named(field, layers) for field in PLUGINS}
        self.check.owners = {section: f"{field} {self.chosen[field]!r}" for section, field in SECTIONS.items()}
        self.plugins: dict[str, type[BaseModel]] = {}
        for section, field in SECTIONS.items():
            with self.check.mistakes.collected():
                self.plugins[section] = _plugin(field, self.chosen[field], self.check.said.get(field, field))
        fields: dict[str, Any] = {section: (self.plugins.get(section, Any), None) for section in SECTIONS}
        self.schema = create_model("Config", __base__=Config, **fields)
        self.values: dict[str, Any] = {section: {} for section in self.plugins}
        self.notes: list[str] = []
        for layer in layers:
            settings = self._settings(layer)
            others = {key: value for key, value in layer.values.items() if key not in (*PLUGINS, *PLUGIN_KEYS)}
            self._forget(layer)
            self.values = _over(self.values, self.check.section(others, self.schema) | settings)
        self.values |= self.chosen

    def config(self, training: bool = True) -> Config:
        """The config. Raises UserError for all mistakes at once."""
        check = self.check
        found = check.validate(self.schema, self.values)
        if wrong := bool(check.wrong or check.mistakes):
            found = self._readable(set(check.wrong) | SECTIONS.keys() - self.plugins.keys())
        for broken in broken_rules(found, training, incomplete=wrong):
            said = check.said.get(broken.field, broken.field)
            check.mistakes.append(UserError(said, broken.value, broken.reason, broken.remedy))
        check.mistakes.tell()
        return Config(**{name: getattr(found, name) for name in Config.model_fields})  # equal if all values are

    def _forget(self, layer: Layer) -> None:
        """What belongs to a name that this layer replaces: an architecture to its model, a size to its problem sets."""
        data, model = layer.values.get("data"), layer.values.get("model")
        known = self.values.get("data")
        for field in ("train", "eval", "validation"):
            if isinstance(data, Mapping) and field in data and f"{field}_size" not in data and isinstance(known, dict):
                named = _words(data[field])
                if not any(word.startswith(GENERATED) for word in named):
                    known[f"{field}_size"] = None
        known = self.values.get("model")
        if isinstance(model, Mapping) and "name_or_path" in model and "architecture" not in model:
            if not isinstance(known, dict) or not known.get("architecture"):
                return
            name = " ".join(_words(model["name_or_path"]))
            if name != known.get("name_or_path"):
                width = known.pop("architecture").get("hidden_size")
                was = f"model.architecture (hidden size {width}) was written for {known.get('name_or_path')}"
                self.notes.append(f"{was} and is dropped: {name} has its own config.json")

    def _named(self, field: str, layers: Sequence[Layer]) -> str:
        """The name of the plug-in: from the last layer that names it, else the default."""
        name = Config.model_fields[field].default
        for layer in layers:
            if field in layer.values:
                self.check.said |= layer.below(field, field)
                name = self.check.section({field: layer.values[field]}, Config).get(field, name)
        if isinstance(name, str):
            return name
        self.check.refuse(field, name, "not a name", "Write the name of one plug-in; see --help.")
        return str(Config.model_fields[field].default)

    def _settings(self, layer: Layer) -> dict[str, Any]:
        """The layer's settings of the chosen plug-ins, by section; those of others are checked."""
        self.check.said |= {path: said for path, said in layer.said.items() if path.partition(".")[0] not in SECTIONS}
        settings: dict[str, Any] = {}
        for section, field in SECTIONS.items():
            chosen = self.chosen[field]
            several = self.check.mapping(layer.values.get(f"{section}s"), f"{section}s")
            owned = [(name, f"{section}s.{name}", values) for name, values in several.items()]
            if section in layer.values:
                owner = layer.values.get(field)
                owner = " ".join(owner.times[-1]) if isinstance(owner, FlagWords) else owner
                owned.append((owner if isinstance(owner, str) else chosen, section, layer.values[section]))
            for name, prefix, values in owned:
                said = layer.below(prefix, section)
                if not _same(name, chosen):
                    self._check_other(section, name, values, said)
                elif section in self.plugins:
                    self.check.said |= said
                    own = self.check.section(values, self.plugins[section], section)
                    settings[section] = _over(settings.get(section, {}), own)
        return settings

    def _check_other(self, section: str, name: str, values: Any, said: dict[str, str]) -> None:
        """Settings of a plug-in that is not chosen this time must be right as well."""
        with self.check.mistakes.collected():
            plugin = _plugin(SECTIONS[section], name, said.get(section, section))
            check = Check(said, {section: f"{SECTIONS[section]} {name!r}"})
            check.validate(plugin, check.section(values, plugin, section), section)
            self.check.mistakes += check.mistakes

    def _readable(self, wrong: set[str]) -> Config:
        """The config without the fields that are wrong: to read one of them raises AttributeError."""
        values = deepcopy(self.values)
        for path in wrong:
            *sections, leaf = path.split(".")
            target: Any = values
            for section in sections:
                target = target.get(section) if isinstance(target, dict) else None
            if isinstance(target, dict):
                target.pop(leaf, None)
        try:
            config = self.schema.model_validate(values).model_copy(deep=True)  # deep: defaults are shared
        except ValidationError as error:  # a section that cannot do without what is wrong
            return self._readable(wrong | {str(details["loc"][0]) for details in error.errors()})
        for path in wrong:
            *sections, leaf = path.split(".")
            target = config
            for section in sections:
                target = getattr(target, section, None)
            if isinstance(target, BaseModel):
                vars(target).pop(leaf, None)
        return config


def _with_its_own(layer: Layer) -> list[Layer]:
    """A layer that names an environment of another library, with what belongs to that below it: its grader, its
    problems, and values by sampled answers, since it has no golds."""
    name = " ".join(_words(layer.values["env"])) if "env" in layer.values else ""
    if not plugins.is_foreign(name):
        return [layer]
    own = {"grader": name, "data": {"train": [name], "eval": [name]}, "prompts": "instruct"}
    own |= {"prover": {"estimator": "monte_carlo"}}
    return [Layer.of(own, f"by env {name}"), layer]


def _paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all that is said."""
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")


def _words(said: Any) -> list[str]:
    """What was said, in a file or behind a flag, word by word."""
    if isinstance(said, FlagWords):
        return [word.strip("[ '\"]") for time in said.times for word in time]
    return [str(word) for word in said] if isinstance(said, list) else [str(said)]


def _plugin(field: str, name: str, said: str) -> type[BaseModel]:
    package, base = PLUGINS[field]
    return plugins.load(package, name, base, said)


def _same(name: Any, other: str) -> bool:
    """Whether two names, or two paths (a file and a run's copy of it), mean one plug-in."""
    kinds, labels = ({plugins.is_path(n) for n in (name, other)}, {plugins.label(n) for n in (name, other)})
    return len(kinds) == 1 and len({plugins.dashed(label) for label in labels}) == 1


def _over(base: Any, over: Any) -> Any:
    """Mappings are merged key by key; anything else, lists too, is replaced."""
    if isinstance(over, Anew) or not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: _over(base[key], value) if key in base else value for key, value in over.items()}
