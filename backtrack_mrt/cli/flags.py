"""A command line as a layer of settings, and the help that lists them all."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from backtrack_mrt.cli.command import PROGRAM, Help, Parser
from backtrack_mrt.config import Config, Ledger
from backtrack_mrt.config.files import Layer, Merged
from backtrack_mrt.config.run import TUNING_SEED
from backtrack_mrt.config.schema import FlagWords, entries_of, members, section_of
from backtrack_mrt.errors import Mistakes, UserError
from backtrack_mrt.training.roofline import DEVICES, HERE

KINDS = {bool: "{true,false}", int: "INTEGER", float: "NUMBER", type(None): "null"}  # in the help; others are TEXT


def run_parser(**settings: Any) -> Parser:
    """The parser of what is said about a run but is no part of its config."""
    parser = Parser(allow_abbrev=False, add_help=False, formatter_class=Help, **settings)
    add = parser.add_argument_group("run options").add_argument
    add("-h", "--help", action="store_true", help="show this and exit")
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("--config", metavar="FILE", help="YAML files, merged left to right", **several)
    resuming = (
        "continue the run in that directory, with its config (without RUN: the one in --output-dir, with this one)"
    )
    add("--resume", nargs="?", const=True, metavar="RUN", help=resuming)
    add("--accept-changes", action="store_true", help="with --resume: go on although the config, data or code changed")
    add("--overwrite", action="store_true", help="delete the run in --output-dir and start anew")
    planning = "print tokens, parameters, memory, time per step; load no weights (for this machine, or one of:"
    add("--dry-run", nargs="?", const=HERE, metavar="DEVICE", help=f"{planning} {', '.join(DEVICES)}, 48GiB)")
    add("--compare", metavar="ALGO", help="train these as well and compare", **several)
    add("--seeds", type=int, metavar="SEED", help="train with each of these", **several)
    fairly = "with --compare: as many tokens for the others as for the first, sampled ones, all, or once each"
    add("--equal", choices=get_args(Ledger), help=f"{fairly} (default: sampled)", **several)
    trying = "first try these values for every algorithm on data.validation, as many runs each, and keep the best"
    add("--tune", metavar="FIELD VALUE", help=f"{trying} (algorithms.NAME.SETTING: that one's own)", **several)
    add("--tune-seeds", type=int, metavar="SEED", help=f"seeds of the trials (default: {TUNING_SEED})", **several)
    return parser


def read_line(arguments: Sequence[str]) -> tuple[argparse.Namespace, Layer]:
    """The run's options, and the flags as a layer. Raises UserError for options that are not understood."""
    parser = run_parser(prog=f"{PROGRAM} train")
    stray, own, typed = list[str](), list[str](), dict[str, list[list[str]]]()
    words = stray  # where a word that is no flag goes: to the flag before it
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not re.match(r"--?[a-zA-Z]|--$", argument):
            words.append(argument)
        elif name.replace("_", "-") in parser._option_string_actions:
            words = own
            own.append(name.replace("_", "-") + equals + value)
        else:
            words = [value] if equals else []
            typed.setdefault(name.lstrip("-").replace("-", "_"), []).append(words)
    mistakes = Mistakes(
        UserError("command line", word, "not expected here", "Write --name value; see --help.") for word in stray
    )
    options = parser.parse_args([])
    with mistakes.collected():
        options = parser.parse_args(own)
    if options.resume and options.overwrite:
        mistakes.append(UserError("--overwrite", "--resume", "these exclude each other", "Give one of them."))
    values: dict[str, Any] = {}
    said: dict[str, str] = {}
    for path, times in typed.items():
        spoken = FlagWords(tuple(map(tuple, times)))
        meant = difflib.get_close_matches(f"--{path.replace('_', '-')}", parser._option_string_actions, n=1, cutoff=0.8)
        if meant and path not in Config.model_fields:
            mistakes.append(UserError(f"--{path}", spoken, "unknown flag", f"Did you mean {meant[0]!r}?"))
            continue
        *sections, leaf = path.split(".")
        target: Any = values
        for depth, section in enumerate(sections, start=1):
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
            said.setdefault(".".join(sections[:depth]), f"--{path} (command line)")
        if isinstance(target, dict) and leaf not in target:
            target[leaf], said[path] = spoken, f"--{path} (command line)"
        else:
            remedy = "Leave out one of the two."
            mistakes.append(UserError(f"--{path}", spoken, "given as a whole and by its parts", remedy))
    return options, Layer(values, said, tuple(mistakes))


def settings_parser(merged: Merged, **settings: Any) -> Parser:
    """The run's options and all fields, to be shown: the help tells the values that they have in `merged` as defaults.
    The arguments themselves are read by `read_line`."""
    usage = "%(prog)s [--algo NAME] [--env NAME] [--config FILE ...]\n           [--SECTION.FIELD VALUE ...]"
    parser = run_parser(usage=usage, **settings)
    owners = {section: f" ({owner})" for section, owner in merged.check.owners.items()}

    def add(model: type[BaseModel], values: Any, path: str, meaning: str) -> None:
        group = parser.add_argument_group(
            f"{path} options{owners.get(path, '')}".strip(), meaning.replace("%", "%%") or None
        )
        inner = []
        for name, field in model.model_fields.items():
            known = isinstance(values, Mapping) and name in values
            value = values[name] if known else field.get_default(call_default_factory=True)
            below, entries = f"{path}.{name}" if path else name, section_of(entries_of(field.annotation))
            if section := entries or section_of(field.annotation):
                about = field.description or getattr(section, "summary", "") or (section.__doc__ or "").split("\n")[0]
                inner.append((section, None if entries else value, f"{below}.NAME" if entries else below, about))
                continue
            flags = [f"--{name.replace('_', '-')}"] if not path else []
            about = f"{field.description or ''} ({_default(value)})".strip().replace("%", "%%")
            group.add_argument(*dict.fromkeys([*flags, f"--{below}"]), metavar=_kind(field.annotation), help=about)
        for section, value, below, about in inner:
            add(section, value, below, about)

    add(merged.schema, merged.values, "", "")
    return parser


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, (list, tuple)):
        return f"default: {' '.join(map(_word, value)) or '[]'}"
    return f"default: {_word(value)}"


def _word(value: Any) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(annotation: Any) -> str:
    """What is typed for a field of that type."""
    kinds = []
    for member in members(annotation):
        inner = get_args(member) or (str,)
        if get_origin(member) is Literal:
            kinds.append(f"{{{','.join(map(str, inner))}}}")
        elif get_origin(member) in (list, tuple):
            kinds.append(f"{_kind(inner[0])} [...]")
        else:
            kinds.append(KINDS.get(member, "TEXT"))
    return "|".join(dict.fromkeys(kinds))
