"""What a command of `backtrack-mrt` is: one module in `cli/commands/`, named as it is typed (`warm_start.py` for
`warm-start`). It says

    its docstring      the help; the first line is the summary in the list of commands
    EXAMPLES           command lines, shown below the help
    arguments(parser)  its arguments and flags
    run(args)          what it does; returns an exit code, None for 0

Modules are imported when their command is typed, and torch only when it must be: a mistake costs half a second.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import pkgutil
import re
import textwrap
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import NoReturn, Protocol, cast

from backtrack_mrt.cli import commands
from backtrack_mrt.cli.places import typed_path
from backtrack_mrt.errors import UserError, did_you_mean

PROGRAM = "backtrack-mrt"


class Help(argparse.RawDescriptionHelpFormatter):
    """Paragraphs are as wide as the terminal; those with indented lines (examples) stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        told = text.strip("\n").split("\n\n")
        filled = (p if "\n " in p else textwrap.fill(p, width, break_on_hyphens=False) for p in told)
        return super()._fill_text("\n\n".join(filled), width, indent)


class Parser(argparse.ArgumentParser):
    """The arguments of one command. A mistake in them is a UserError."""

    takes_settings = False
    takes_others = False
    helps = True

    def error(self, message: str) -> NoReturn:
        see = f"See `{self.prog} --help`."
        if about := re.fullmatch(r"argument (\S+): (.*?)(?:: '(.*)')?", message):
            raise UserError(about[1], about[3], about[2], see)
        problem, _, names = message.partition(": ")
        if problem == "the following arguments are required":
            raise UserError("command line", names, "required, and not given", see)
        flag = next((word for word in names.split() if word.startswith("--")), "")
        known = (name for name in self._option_string_actions if name.startswith("--"))
        remedy = did_you_mean(flag, known) if problem.startswith("unrecognized") and flag else see
        raise UserError("command line", names, problem, remedy)

    def take_settings(self, help: bool = True) -> None:
        """Take the config's settings as further flags: they are kept in `args.settings`, for `read_request`.
        help: False leaves --help to it."""
        self.takes_settings, self.helps = True, help
        if help:
            self.description = f"{self.description}\n\nFurther flags are settings: `{PROGRAM} train --help` lists them."

    def take_others(self, whose: str) -> None:
        """Take flags of another program behind `--`: they are kept in `args.others`."""
        self.takes_others = True
        self.description = f"{self.description} Behind `--` come flags of {whose}."

    def take_model(self) -> None:
        """Take RUN or MODEL, and settings: see `backtrack_mrt.cli.run_or_model`."""
        what = "a run, with its config and trained model; or a model: a directory, a hub name, tiny"
        self.add_argument("what", nargs="?", type=typed_path, metavar="RUN|MODEL", help=what)
        self.take_settings()

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, settings apart. Raises UserError."""
        cut = arguments.index("--") if self.takes_others and "--" in arguments else len(arguments)
        own, settings = self._told_apart(arguments[:cut]) if self.takes_settings else ([*arguments[:cut]], [])
        args = self.parse_args(own)
        args.settings, args.others = settings, [*arguments[cut + 1 :]]
        return args

    def _told_apart(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """What is this command's, and flags that are not, each with its values."""
        own: list[str] = []
        settings: list[str] = []
        target = own
        for argument in arguments:
            if argument.startswith("--") or argument == "-h":
                known = argument.partition("=")[0] in self._option_string_actions
                target = own if known else settings
            target.append(argument)
        return own, settings


def natural(text: str) -> int:
    """The type of an argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a whole number of at least 1: {text!r}")
    return int(text)


class Command(Protocol):
    """A module of `cli/commands/`."""

    __doc__: str
    EXAMPLES: str

    arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int | None]


def summaries() -> dict[str, str]:
    """All commands with their summaries. None is imported."""
    told = dict[str, str]()
    for name in command_names():
        source = files(commands).joinpath(f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
        told[name] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return told


def command_names() -> list[str]:
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__))


def find(name: str) -> Command:
    """The command of that name. Raises UserError."""
    if name not in command_names():
        raise UserError("COMMAND", name, "there is no such command", did_you_mean(name, command_names()))
    return cast(Command, importlib.import_module(f"{commands.__name__}.{name.replace('-', '_')}"))


def parser_of(name: str) -> Parser:
    """The parser of the command of that name. Raises UserError."""
    command = find(name)
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=command.__doc__.strip(),
        epilog=f"examples:\n{command.EXAMPLES.rstrip()}",
        formatter_class=Help,
        allow_abbrev=False,
        add_help=False,
    )
    command.arguments(parser)
    if parser.helps:
        parser.add_argument("-h", "--help", action="help", help="show this and exit")
    return parser
