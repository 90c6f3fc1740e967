"""Layers of settings: YAML files, one after the other, then the command line. Each value remembers where it was said,
so that a mistake is told with its file and line.

A path of a plug-in (`algo`, `env`, `prompts`) is relative to the file that names it.

In a file, settings of a plug-in belong to the plug-in that the file names (`algorithm` to its `algo`, `protocol` to its
`env`); ``algorithms: {mrt-rl: {alpha: 2.0}, grpo: {}}`` (and `protocols`) give settings for several. Only those of the
chosen plug-in become part of the config, so one file serves every ``--algo``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError, create_model

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.protocol import EpisodeProtocol

PLUGIN_SECTIONS = {"algorithm": "algo", "protocol": "env"}  # section: the field that names the plug-in
PATHS = (*PLUGIN_SECTIONS.values(), "prompts")  # fields that may be paths of the user's own files
PLUGINS: dict[str, tuple[str, type[BaseModel]]] = {  # by the field that names them: package and base class
    "algo": ("backtrack_mrt.algos", Algorithm),
    "env": ("backtrack_mrt.envs", EpisodeProtocol),
}


@dataclass(frozen=True)
class Layer:
    """Settings from one source. `places` tells for a dotted name where it was said."""

    values: dict[str, Any]
    places: Mapping[str, str]

    def place(self, path: str) -> str:
        """Where the value at `path` (or the nearest section around it) was said; "" if not in this layer."""
        while path and path not in self.places:
            path = path.rpartition(".")[0]
        return self.places.get(path, "")


def read_layer(name: str) -> Layer:
    """The layer of a YAML file, or of a shipped config of that name. Raises UserError naming file and line."""
    path = _resolve(name)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise UserError("--config", name, "the file is empty", "Write at least one setting, or leave --config out.")
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1
            raise UserError(
                f"{path}, line {line}", str(node.value)[:40], "not a mapping", "Write `section: {key: value}`."
            )
        places = {key: f"{path}, line {line}" for key, line in _lines(node, "", str(path))}
        return Layer(_anchored(yaml.safe_load(text), path.parent), places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError("--config", name, f"invalid YAML ({where}: {problem})", "Correct that line.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("--config", name, f"cannot be read: {error}", "Give a YAML file in UTF-8.") from error


def _anchored(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values of a file in `folder`, with the paths of plug-ins as absolute ones."""
    named = {key: plugins.anchored(values[key], folder) for key in PATHS if isinstance(values.get(key), str)}
    return values | named


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(entry.name for entry in files("backtrack_mrt.configs").iterdir() if entry.name.endswith(".yaml"))


def _resolve(name: str) -> Path:
    own = Path(name)
    if own.is_file():
        return own
    if own.is_dir():
        raise UserError("--config", name, "is a directory", "Give a YAML file, such as the directory's config.yaml.")
    shipped = name.removeprefix("configs/").removesuffix(".yaml") + ".yaml"
    if shipped in shipped_configs():
        return Path(str(files("backtrack_mrt.configs") / shipped))
    raise UserError("--config", name, "no such file, and no shipped config", did_you_mean(name, shipped_configs()))


def _lines(node: yaml.Node, prefix: str, path: str) -> Iterator[tuple[str, int]]:
    """Every key below `node` as a dotted name, with its line. A key written twice is refused: YAML would silently keep
    the last."""
    if not isinstance(node, yaml.MappingNode) or prefix.count(".") > 8:
        return
    seen = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise UserError(
                f"{path}, line {line}", str(key.value)[:40], "this key is not a name", "Write `name: value`."
            )
        if key.value in seen:
            raise UserError(f"{path}, line {line}", prefix + key.value, "the key is written twice", "Keep one of them.")
        seen.add(key.value)
        yield prefix + key.value, line
        yield from _lines(value, f"{prefix}{key.value}.", path)


def choose(layer: Layer, chosen: Mapping[str, str]) -> Layer:
    """The layer with the settings of the chosen plug-ins under `algorithm` and `protocol`; those of others are dropped.

    `chosen` maps "algo" and "env" to names."""
    values, places = dict(layer.values), dict(layer.places)
    for section, naming in PLUGIN_SECTIONS.items():
        several = values.pop(f"{section}s", None) or {}
        if not isinstance(several, dict):
            where = layer.place(f"{section}s")
            raise UserError(f"{section}s ({where})", several, "not a mapping", f"Write `{section}s: {{name: {{…}}}}`.")
        own = values.pop(section, None)
        if not _same(str(values.get(naming, chosen[naming])), chosen[naming]):
            own = None
        named = next((name for name in several if _same(name, chosen[naming])), None)
        if named is not None:
            prefix = f"{section}s.{named}"
            places |= {
                section + key.removeprefix(prefix): at for key, at in layer.places.items() if _below(key, prefix)
            }
            places |= {key: at for key, at in layer.places.items() if _below(key, section)} if own else {}
            own = merge(several[named] or {}, own or {})
        if own is not None:
            values[section] = own
    return Layer(values, places)


def merge(base: Any, over: Any) -> Any:
    """Mappings are merged key by key; anything else, lists too, is replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: merge(base[key], value) if key in base else value for key, value in over.items()}


def checked(
    values: Mapping[str, Any], model: type[BaseModel], layer: Layer, known: list[str], prefix: str = ""
) -> dict[str, Any]:
    """The values without sections left empty. Refuses unknown keys, and yes/no where a number is wanted (Python takes
    True for 1). `known` are all dotted names there are, `prefix` is the dotted name of `model` with a dot."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if key not in model.model_fields:
            raise UserError(f"{path} ({layer.place(path)})", value, "unknown key", nearest(path, known))
        members = _members(model.model_fields[key].annotation)
        section = section_of(model.model_fields[key].annotation)
        if isinstance(value, bool) and {int, float} & set(members):
            raise UserError(f"{path} ({layer.place(path)})", value, "not a number", "Write a number.")
        if section is not None and isinstance(value, Mapping):
            kept[key] = checked(value, section, layer, known, f"{path}.")
        elif (named := named_section_of(model.model_fields[key].annotation)) and isinstance(value, Mapping):
            kept[key] = dict(value)
            for name in (name for name, entry in value.items() if isinstance(entry, Mapping)):
                inside = f"{path}.{name}."
                kept[key][name] = checked(value[name], named, layer, field_paths(named, inside), inside)
        elif section is None or value is not None or type(None) in members:
            kept[key] = value
    return kept


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a section (or may be one), else None."""
    return next((m for m in _members(annotation) if isinstance(m, type) and issubclass(m, BaseModel)), None)


def named_section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds sections by names of the user's own, else None."""
    return section_of(get_args(annotation)[1]) if get_origin(annotation) is dict else None


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all fields, those of sections after the section's own."""
    paths = []
    for name, field in model.model_fields.items():
        paths.append(prefix + name)
        if section := section_of(field.annotation):
            paths += field_paths(section, f"{prefix}{name}.")
    return paths


def nearest(path: str, known: list[str]) -> str:
    """The remedy for an unknown dotted name: the same name in another section, a similar one, the section's keys."""
    section, _, leaf = path.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    matches = [name for name in known if name.rpartition(".")[2] == leaf]
    matches = matches or difflib.get_close_matches(path, siblings, n=1) or difflib.get_close_matches(path, known, n=1)
    hint = f"Did you mean {matches[0]!r}? " if matches else ""
    return f"{hint}Known here: {', '.join(name.rpartition('.')[2] for name in siblings)}."


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _same(name: str, other: str) -> bool:
    """Whether two names, or two paths (a file and a run's copy of it), mean one plug-in."""
    kinds, labels = ({plugins.is_path(n) for n in (name, other)}, {plugins.label(n) for n in (name, other)})
    return len(kinds) == 1 and len({plugins.canonical(label) for label in labels}) == 1


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}.")


def load(path: str) -> Config:
    """The config saved in a YAML file. Raises UserError for whatever is wrong in it."""
    layer = read_layer(path)
    chosen = {field: chosen_plugin(field, None, [layer]) for field in PLUGIN_SECTIONS.values()}
    return resolve(schema_for(chosen, [layer]), [layer], chosen)


def resolve(schema: type[Config], layers: Sequence[Layer], chosen: Mapping[str, str]) -> Config:
    """The layers merged, left to right, and validated. Raises UserError naming where the mistake was said."""
    for layer in layers:
        check_all_plugins(layer)
    layers = [choose(layer, chosen) for layer in layers]
    values: dict[str, Any] = {section: {} for section in PLUGIN_SECTIONS}
    for layer in layers:
        values = merge(values, checked(layer.values, schema, layer, field_paths(schema)))
    return _validated(schema, values | dict(chosen), layers)


def chosen_plugin(field: str, flag: str | None, layers: Sequence[Layer]) -> str:
    """The name of the plug-in: from its flag, else the last file that names it, else the default."""
    named = [layer.values[field] for layer in layers if field in layer.values]
    name = flag if flag is not None else named[-1] if named else Config.model_fields[field].default
    if not isinstance(name, str):
        raise UserError(field, name, "not a name", "Write the name of one plug-in; see --help.")
    return name


def schema_for(chosen: Mapping[str, str], layers: Sequence[Layer]) -> type[Config]:
    """`Config` with the concrete classes of the chosen plug-ins in place of the abstract ones."""
    fields: dict[str, Any] = {}
    for section, field in PLUGIN_SECTIONS.items():
        package, base = PLUGINS[field]
        fields[section] = (plugins.load(package, chosen[field], base, _at(field, layers)), ...)
    return create_model("Config", __base__=Config, **fields)


def check_all_plugins(layer: Layer) -> None:
    """Settings of plug-ins that are not chosen this time must be right as well."""
    for section, field in PLUGIN_SECTIONS.items():
        several = layer.values.get(f"{section}s")
        for name, settings in several.items() if isinstance(several, dict) else ():
            package, base = PLUGINS[field]
            prefix = f"{section}s.{name}"
            plugin = plugins.load(package, name, base, f"{prefix} ({layer.place(prefix)})")
            known = field_paths(plugin, f"{prefix}.")
            if isinstance(settings, dict):
                checked(settings, plugin, layer, known, f"{prefix}.")
            try:
                plugin.model_validate({} if settings is None else settings)
            except ValidationError as error:
                raise _told(error, plugin, [layer], f"{prefix}.") from error


def _validated(schema: type[Config], values: dict[str, Any], layers: Sequence[Layer]) -> Config:
    """The config, as a plain `Config`: two of them are equal if all their values are."""
    try:
        concrete = schema.model_validate(values)
    except ValidationError as error:
        raise _told(error, schema, layers) from error
    except UserError as error:  # a rule across fields
        raise UserError(_at(error.field, layers), error.value, error.reason, error.remedy) from error
    return Config(**{name: getattr(concrete, name) for name in Config.model_fields})


def _told(error: ValidationError, model: type[BaseModel], layers: Sequence[Layer], prefix: str = "") -> UserError:
    """The first mistake that pydantic found, in the words of the user's files."""
    first = error.errors()[0]
    known = set(field_paths(model))
    parts = [str(part) for part in first["loc"]]
    path = next((p for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in known), ".".join(parts))
    field: Any = None
    cursor: type[BaseModel] | None = model
    for part in path.split("."):
        field = cursor.model_fields.get(part) if cursor else None
        cursor = section_of(field.annotation) if field is not None else None
    if len(inner := parts[path.count(".") + 1 :]) > 1 and (named := named_section_of(field.annotation)):
        path, field = f"{path}.{inner[0]}.{inner[1]}", named.model_fields.get(inner[1])
    meaning = f"It is: {field.description}." if field is not None and field.description else "See --help."
    reason = str(first["msg"])
    value = None if first["type"] == "missing" else first["input"]
    return UserError(_at(prefix + path, layers), value, reason[:1].lower() + reason[1:], meaning)


def _at(path: str, layers: Sequence[Layer]) -> str:
    """`path` with the place where its value was said, if anyone said it."""
    said = next((layer.places[path] for layer in reversed(layers) if path in layer.places), None)
    return f"{path} ({said})" if said else path
