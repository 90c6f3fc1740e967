"""The flags of a command line: made of the config's fields and the options of a run, read as a layer of values."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import yaml
from pydantic_settings import CliSettingsSource

from backtrack_mrt.config import Config
from backtrack_mrt.config_files import PLUGIN_SECTIONS, Layer, nearest
from backtrack_mrt.errors import UserError
from backtrack_mrt.training.roofline import DEVICES, HERE


class Parser(argparse.ArgumentParser):
    """Tells a mistake as a UserError."""

    def error(self, message: str) -> NoReturn:
        raise UserError("command line", message.split(":")[0], message.partition(": ")[2] or message, "See --help.")


def with_run_options(parser: Parser) -> Parser:
    """`parser` with what is said about a run but is no part of its config."""
    group = parser.add_argument_group("run options")
    group.add_argument(
        "--config", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files, merged left to right"
    )
    group.add_argument("--resume", action="store_true", help="continue the run in --output-dir")
    group.add_argument(
        *("--accept-changes", "--accept_changes"),
        action="store_true",
        help="with --resume: go on although the config was changed",
    )
    group.add_argument("--overwrite", action="store_true", help="delete the run in --output-dir and start anew")
    group.add_argument(
        *("--dry-run", "--dry_run"),
        nargs="?",
        const=HERE,
        metavar="DEVICE",
        help="print tokens, parameters, memory, time per step; load no weights (for this machine, or one of: "
        f"{', '.join(DEVICES)})",
    )
    group.add_argument(
        "--compare", nargs="+", action="extend", default=[], metavar="ALGO", help="train these as well and compare"
    )
    group.add_argument(
        "--seeds", nargs="+", action="extend", default=[], type=int, metavar="SEED", help="train with each of these"
    )
    return parser


# Their names: what is said with these is not saved with the config.
_RUN_OPTIONS = frozenset(vars(with_run_options(Parser()).parse_args([])))


def full_parser(schema: type[Config], prog: str | None, description: str, epilog: str) -> Parser:
    """All flags: the run's options and the fields of `schema`. Top-level ones have a spelling with dashes; lists take
    several values."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--algo NAME] [--env NAME] [--config FILE ...] [--SECTION.FIELD VALUE ...]",
    )
    with_run_options(parser)

    def add(group: argparse.ArgumentParser, *names: str, **settings: Any) -> None:
        if settings.get("const") == "{}" or str(settings.get("metavar")).startswith("dict["):
            return  # whole sections as JSON: write them in a YAML file
        if settings.get("action") == "append":
            settings |= {"action": "extend", "nargs": "+", "metavar": "VALUE"}
        dashed = [name.replace("_", "-") for name in names if "_" in name and "." not in name]
        group.add_argument(*dashed, *names, **settings)

    CliSettingsSource(
        schema,  # type: ignore[arg-type]  # any model will do: only its fields are read
        root_parser=parser,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        add_argument_method=add,
    )
    return parser


def overrides(parser: Parser, arguments: Sequence[str], chosen: Mapping[str, str]) -> Layer:
    """The command line as a layer."""
    flags, unknown = parser.parse_known_args(arguments)
    known = [action.dest for action in parser._actions]
    for index, argument in enumerate(unknown):
        name, _, value = argument.partition("=")
        if not name.startswith("-"):
            raise UserError("command line", argument, "not expected here", "Write --name value; see --help.")
        value = value or next(iter(unknown[index + 1 :]), "")
        owner = PLUGIN_SECTIONS.get(name.strip("-").partition(".")[0])
        reason = f"{owner} {chosen[owner]!r} has no such setting" if owner else "unknown flag"
        raise UserError(name, value, reason, nearest(name.strip("-"), known))
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path, value in vars(flags).items():
        if path in _RUN_OPTIONS:
            continue
        *sections, leaf = path.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = _plain(value)
        places[path] = "command line"
    return Layer(values, places)


def _plain(value: Any) -> Any:
    """Null and lists in brackets are read as YAML; other values stay text, which pydantic converts."""
    if isinstance(value, list):
        if len(value) == 1 and value[0].startswith("["):
            return yaml.safe_load(value[0])
        return value
    return None if value == "null" else value


def with_underscores(argument: str) -> str:
    """``--output-dir=X`` as ``--output_dir=X``: both spellings of a flag are right."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
