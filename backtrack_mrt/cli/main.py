"""`backtrack-mrt COMMAND`: finds the command and runs it.

Nothing but `errors` is imported before `run_main` is at work: Ctrl-C ends in one line from the first moment on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from backtrack_mrt import __version__
from backtrack_mrt.errors import UserError, run_main


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (the process's own by default) and exit with its code."""
    run_main(lambda: main(arguments))


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run a command line and return its exit code, None for 0. Raises UserError for a mistake in it, RunError for what
    went wrong, SystemExit behind --help."""
    from backtrack_mrt.cli.command import PROGRAM, find, parser_of
    from backtrack_mrt.plugins import failures_told
    from backtrack_mrt.runs import environment, processes

    environment.prepare()
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return None
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return None
    if name == "--print-completion":
        from backtrack_mrt.cli.completion import script

        print(script(rest[0] if rest else ""))
        return None
    if sys.platform == "win32":
        remedy = "Use the Windows Subsystem for Linux (WSL)."
        raise UserError("system", "Windows", "it has neither the locks nor the processes that runs need", remedy)
    with processes.main_tells_first(), failures_told():
        command = find(name)
        return command.run(parser_of(name).parse(rest))


def overview() -> str:
    """The list of commands."""
    from backtrack_mrt.cli.command import PROGRAM, summaries

    told = summaries()
    width = max(map(len, told))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in told.items())
    return f"""\
usage: {PROGRAM} COMMAND …

Meta Reinforcement fine-Tuning (MRT) for backtracking search.

commands:
{commands}

options:
  {"--help":<{width}}  this list; behind a command, its help
  {"--version":<{width}}  the version
  --print-completion SHELL
  {"":<{width}}  completion: `source <({PROGRAM} --print-completion bash)`

To begin: {PROGRAM} train --algo mrt-rl"""
