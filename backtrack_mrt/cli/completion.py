"""Completion of commands, flags and their values in a shell, made of the parsers of all commands."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import shtab

from backtrack_mrt import plugins
from backtrack_mrt.cli.command import PROGRAM, Parser, parser_of, summaries
from backtrack_mrt.cli.flags import settings_parser
from backtrack_mrt.config.files import DEFAULT_CONFIG, PLUGINS, Merged, read_layer, shipped_configs
from backtrack_mrt.errors import UserError, did_you_mean


def script(shell: str) -> str:
    """The completion script of a shell, to be read by it. Raises UserError for one that is not known."""
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError("--print-completion", shell, "an unknown shell", did_you_mean(shell, shtab.SUPPORTED_SHELLS))
    parser = argparse.ArgumentParser(prog=PROGRAM)
    for flag in ("--version", "--print-completion"):
        parser.add_argument(flag, choices=shtab.SUPPORTED_SHELLS if flag != "--version" else None)
    commands = parser.add_subparsers()
    for name, summary in summaries().items():
        own = parser_of(name)
        parents = [_settings(), own] if own.takes_settings else [own]
        for action in own._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        commands.add_parser(name, parents=parents, help=summary, add_help=False, conflict_handler="resolve")
    return str(shtab.complete(parser, shell))


def _settings() -> Parser:
    """The flags of all settings of the embedded default, with the values that are known."""
    parser = settings_parser(Merged([read_layer(DEFAULT_CONFIG)]))
    known = {f"--{field}": plugins.names(package) for field, (package, _) in PLUGINS.items()}
    known["--config"] = shipped_configs()
    for action in parser._actions:
        listed = re.findall(r"{(.*?)}", str(action.metavar))
        action.choices = known.get(action.option_strings[0]) or (listed[0].split(",") if listed else None)
    return parser
