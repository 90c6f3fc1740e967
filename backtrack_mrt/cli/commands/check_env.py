"""Play a protocol through without a model, and read its prompts.

Scripted replies go to every phase, also texts that no model should write. A misspelt placeholder, a missing prompt, a
`parse` that raises anything but ProtocolViolation, or turns without end are told in one line.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from pydantic import ValidationError

from backtrack_mrt import plugins
from backtrack_mrt.cli.command import Parser
from backtrack_mrt.errors import NO_VALUE, UserError
from backtrack_mrt.protocol import EpisodeProtocol

EXAMPLES = """\
  backtrack-mrt check-env retry                                       # all its prompt styles
  backtrack-mrt check-env ./second_look.py --prompts ./second_look
  backtrack-mrt check-env ./second_look.py --prompts ./second_look --reply 'VERDICT: fine' --reply 'VERDICT: no'"""


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("env", metavar="NAME|./FILE.py", help="episode protocol")
    add("--prompts", nargs="+", metavar="STYLE|./FOLDER", help="its prompts (default: all styles that it has)")
    add("--reply", action="append", default=[], metavar="TEXT", help="a turn that it should accept somewhere")


def run(args: Namespace) -> None:
    found = plugins.load("backtrack_mrt.envs", args.env, EpisodeProtocol, "env")  # type: ignore[type-abstract]
    from backtrack_mrt import env
    from backtrack_mrt.rollouts.prompts import load_prompts, styles
    from backtrack_mrt.rollouts.rehearsal import rehearse

    try:
        protocol = found()
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{found.__name__}.{setting}", NO_VALUE, first["msg"], "Give every setting a default."
        ) from error
    for style in args.prompts or styles(args.env):
        prompts = load_prompts(args.env, style)
        seen = rehearse(protocol, prompts, args.reply)
        env.check(protocol, prompts)
        unanswered = sorted(seen.unanswered - set(seen.phases))
        far = ", as far as its replies go" if unanswered else ""
        print(f"{plugins.label(args.env)} with {style}: no mistake found{far}. {protocol.summary}")
        print(f"  phases played: {_told(seen.phases)}; at most {seen.longest} turns of {protocol.max_turns}")
        print(f"  ends seen: {_told(seen.stops)}; violations seen: {_told(seen.violations)}")
        for phase in unanswered:
            print(f"  {phase}: none of the scripted replies was accepted; give one with --reply")


def _told(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
