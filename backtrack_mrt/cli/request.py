"""From a command line to a `RunRequest`: YAML files merged left to right, then dotted overrides, validated once.

pydantic-settings turns the config's fields into flags and ``--help``, argparse reads them, pydantic validates the
merged values. Neither torch nor a model is loaded here: a mistake costs half a second.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.flags import Parser, full_parser, overrides, with_run_options, with_underscores
from backtrack_mrt.config import RunRequest
from backtrack_mrt.config_files import (
    PLUGIN_SECTIONS,
    PLUGINS,
    chosen_plugin,
    read_layer,
    resolve,
    schema_for,
    shipped_configs,
)
from backtrack_mrt.errors import UserError

DEFAULT_CONFIG = "tiny.yaml"  # the embedded default


def load_config(argv: Sequence[str], description: str = "", prog: str | None = None) -> RunRequest:
    """Read a command line. Raises UserError for anything that is not understood; ``--help`` prints and exits."""
    arguments = [with_underscores(argument) for argument in argv]
    early = with_run_options(Parser(add_help=False, allow_abbrev=False))
    for field in PLUGIN_SECTIONS.values():
        early.add_argument(f"--{field}")
    early.add_argument("-h", "--help", action="store_true")
    options, _ = early.parse_known_args(arguments)
    layers = [read_layer(name) for name in options.config or [DEFAULT_CONFIG]]
    chosen = {field: chosen_plugin(field, getattr(options, field), layers) for field in PLUGIN_SECTIONS.values()}
    schema = schema_for(chosen, layers)
    parser = full_parser(schema, prog, description, _epilog())
    if options.help:
        parser.print_help()
        sys.exit(0)
    config = resolve(schema, [*layers, overrides(parser, arguments, chosen)], chosen)
    if options.resume and options.overwrite:
        raise UserError("--overwrite", "--resume", "these exclude each other", "Give one of them.")
    return RunRequest(
        config,
        existing="resume" if options.resume else "overwrite" if options.overwrite else "refuse",
        accept_changes=options.accept_changes,
        dry_run=options.dry_run,
        compare=tuple(options.compare),
        seeds=tuple(options.seeds),
    )


def comparison_requests(argv: Sequence[str]) -> list[RunRequest]:
    """The command line once for its own algorithm and once for each of ``--compare``. Flags of the algorithm are the
    first one's; the others have the settings of the YAML files. Raises UserError for an algorithm named twice."""
    first = load_config(argv)
    names = [plugins.canonical(plugins.label(name)) for name in (first.config.algo, *first.compare)]
    for name in first.compare:
        if names.count(plugins.canonical(plugins.label(name))) > 1:
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


def _epilog() -> str:
    """The plug-ins and the shipped configs."""
    lines = []
    for title, field in (("algorithms", "algo"), ("protocols", "env")):
        lines.append(f"{title} (--{field}; each has flags of its own: --{field} NAME --help):")
        package, base = PLUGINS[field]
        for name in plugins.names(package):
            try:
                summary = getattr(plugins.load(package, name, base, field), "summary", "")
            except Exception as error:
                summary = f"(cannot be used: {error})"
            lines.append(f"  {name:<16}{summary}")
    lines += ["configs (--config):", *(f"  {name}" for name in shipped_configs())]
    return "\n".join(lines)
