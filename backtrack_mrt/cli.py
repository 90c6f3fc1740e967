"""From a command line to a `RunRequest`: YAML files merged left to right, then dotted overrides, validated once.

pydantic-settings turns the config's fields into flags and ``--help``, argparse reads them, pydantic validates the
merged values. Neither torch nor a model is loaded here: a mistake costs half a second.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.config import Config
from backtrack_mrt.config_files import (
    PLUGIN_SECTIONS,
    Layer,
    checked,
    choose,
    field_paths,
    merge,
    named_section_of,
    read_layer,
    section_of,
    shipped_configs,
)
from backtrack_mrt.errors import UserError
from backtrack_mrt.flags import Parser, full_parser, overrides, with_run_options, with_underscores
from backtrack_mrt.protocol import EpisodeProtocol

DEFAULT_CONFIG = "tiny.yaml"  # the embedded default
_PLUGINS: dict[str, tuple[str, type[BaseModel]]] = {  # by the field that names them: package and base class
    "algo": ("backtrack_mrt.algos", Algorithm),
    "env": ("backtrack_mrt.envs", EpisodeProtocol),
}


@dataclass(frozen=True)
class RunRequest:
    """A config and what to do with it. The options are no part of the config: they are not saved with the run."""

    config: Config
    resume: bool = False
    overwrite: bool = False
    accept_changes: bool = False  # of the config, when resuming
    dry_run: str | None = None  # the device to plan for
    compare: tuple[str, ...] = ()  # further algorithms, see `comparison_requests`
    seeds: tuple[int, ...] = ()

    @property
    def if_in_use(self) -> dict[str, bool]:
        """What to do with a run that is there already, as `RunDir` takes it."""
        return {"resume": self.resume, "overwrite": self.overwrite, "accept_changes": self.accept_changes}


def load_config(argv: Sequence[str], description: str = "", prog: str | None = None) -> RunRequest:
    """Read a command line. Raises UserError for anything that is not understood; ``--help`` prints and exits."""
    arguments = [with_underscores(argument) for argument in argv]
    early = with_run_options(Parser(add_help=False, allow_abbrev=False))
    for field in PLUGIN_SECTIONS.values():
        early.add_argument(f"--{field}")
    early.add_argument("-h", "--help", action="store_true")
    options, _ = early.parse_known_args(arguments)
    layers = [read_layer(name) for name in options.config or [DEFAULT_CONFIG]]
    chosen = {field: _chosen(field, getattr(options, field), layers) for field in PLUGIN_SECTIONS.values()}
    schema = _schema(chosen, layers)
    parser = full_parser(schema, prog, description, _epilog())
    if options.help:
        parser.print_help()
        sys.exit(0)
    for layer in layers:
        _check_all_plugins(layer)
    layers = [*(choose(layer, chosen) for layer in layers), overrides(parser, arguments, chosen)]
    values: dict[str, Any] = {section: {} for section in PLUGIN_SECTIONS}
    for layer in layers:
        values = merge(values, checked(layer.values, schema, layer, field_paths(schema)))
    config = _validated(schema, values | chosen, layers)
    return RunRequest(
        config,
        resume=options.resume,
        overwrite=options.overwrite,
        accept_changes=options.accept_changes,
        dry_run=options.dry_run,
        compare=tuple(options.compare),
        seeds=tuple(options.seeds),
    )


def comparison_requests(argv: Sequence[str]) -> list[RunRequest]:
    """The command line once for its own algorithm and once for each of ``--compare``. Flags of the algorithm are the
    first one's; the others have the settings of the YAML files. Raises UserError for an algorithm named twice."""
    first = load_config(argv)
    names = [plugins.canonical(name) for name in (first.config.algo, *first.compare)]
    for name in first.compare:
        if names.count(plugins.canonical(name)) > 1:
            raise UserError("--compare", name, "this algorithm is named twice", "Name each one once.")
        plugins.load("backtrack_mrt.algos", name, Algorithm, "--compare")  # type: ignore[type-abstract]
    shared: list[str] = []
    dropping = False
    for argument in map(with_underscores, argv):
        if argument.startswith("--"):
            name = argument[2:].partition("=")[0]
            dropping = name in ("algo", "compare", "seeds") or name.startswith("algorithm.")
        if not dropping:
            shared.append(argument)
    return [first, *(load_config([*shared, "--algo", name]) for name in first.compare)]


def config_from(path: str) -> Config:
    """The config saved in a YAML file."""
    return load_config(["--config", path]).config


def _chosen(field: str, flag: str | None, layers: Sequence[Layer]) -> str:
    """The name of the plug-in: from its flag, else the last file that names it, else the default."""
    named = [layer.values[field] for layer in layers if field in layer.values]
    name = flag if flag is not None else named[-1] if named else Config.model_fields[field].default
    if not isinstance(name, str):
        raise UserError(field, name, "not a name", "Write the name of one plug-in; see --help.")
    return name


def _schema(chosen: Mapping[str, str], layers: Sequence[Layer]) -> type[Config]:
    """`Config` with the concrete classes of the chosen plug-ins in place of the abstract ones."""
    fields: dict[str, Any] = {}
    for section, field in PLUGIN_SECTIONS.items():
        package, base = _PLUGINS[field]
        fields[section] = (plugins.load(package, chosen[field], base, _at(field, layers)), ...)
    return create_model("Config", __base__=Config, **fields)


def _check_all_plugins(layer: Layer) -> None:
    """Settings of plug-ins that are not chosen this time must be right as well."""
    for section, field in PLUGIN_SECTIONS.items():
        several = layer.values.get(f"{section}s")
        for name, settings in several.items() if isinstance(several, dict) else ():
            package, base = _PLUGINS[field]
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


def _epilog() -> str:
    """The plug-ins and the shipped configs."""
    lines = []
    for title, field in (("algorithms", "algo"), ("protocols", "env")):
        lines.append(f"{title} (--{field}; each has flags of its own: --{field} NAME --help):")
        package, base = _PLUGINS[field]
        for name in plugins.names(package):
            try:
                summary = getattr(plugins.load(package, name, base, field), "summary", "")
            except Exception as error:
                summary = f"(cannot be used: {error})"
            lines.append(f"  {name:<16}{summary}")
    lines += ["configs (--config):", *(f"  {name}" for name in shipped_configs())]
    return "\n".join(lines)
