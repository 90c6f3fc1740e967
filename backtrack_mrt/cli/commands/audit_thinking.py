"""Is thinking worth its tokens? Of any model or stored trace.

Regret, the overthinking tax (tokens after V was already high), starvation (stopped while V still rose), answers that
were right and got lost, and votes after j turns against going on, by problem set; all of it in one HTML file to pass
on. A server with OpenAI's completions is asked without loading weights here.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_folder, typed_path
from backtrack_mrt.errors import NO_VALUE, UserError

if TYPE_CHECKING:
    from backtrack_mrt.config import Config
    from backtrack_mrt.rollouts.assembly import Assembly

VOTES = 8
EXAMPLES = """\
  backtrack-mrt audit-thinking --server http://localhost:8000 --config r1_distill_qwen_1_5b.yaml --data.eval aime24
  backtrack-mrt audit-thinking --model runs/RUN --votes 8
  backtrack-mrt audit-thinking --traces FILE.jsonl                                # values that are in the file
  backtrack-mrt audit-thinking --traces FILE.jsonl --server http://localhost:8000 --env open-ended"""


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--server", metavar="URL", help="a server with OpenAI's completions: samples, and has values")
    add("--model", type=typed_path, metavar="RUN|MODEL", help="a model here; with --server only whose tokenizer it has")
    add("--traces", type=typed_path, metavar="FILE", help="stored traces; nothing is sampled but answers")
    add("--high", type=_share, default=0.9, help="V from which on it is sure (default: %(default)s)")
    add("--rising", type=_share, default=0.05, help="progress of a last turn that is a rise (default: %(default)s)")
    add("--votes", type=int, metavar="P", help="force P answers after each turn, and vote (default: 8 with a model)")
    written = "report and numbers (default: %(default)s)"
    add("--out", type=typed_path, default=Path("thinking"), metavar="FOLDER", help=written)
    parser.take_settings()


def run(args: Namespace) -> None:
    if args.server is None and args.model is None and args.traces is None:
        raise UserError("--server", NO_VALUE, "nothing to audit", "Give --server, --model or --traces; see --help.")
    if args.votes and args.server is None and args.model is None:
        raise UserError("--votes", args.votes, "no model to answer", "Name it, with --server or --model.")
    if args.votes is None:
        args.votes = VOTES if args.server or args.model else 0
    if args.votes < 0:
        raise UserError("--votes", args.votes, "not a number of answers", "Give 0 or more.")
    check_folder("--out", args.out)
    config = _config(args)
    from backtrack_mrt.cli.thinking import audit_thinking
    from backtrack_mrt.evaluation.thinking import Thresholds

    title = str(args.traces or args.server or args.model)
    parts = _parts(config, args)
    audit_thinking(config, parts, args.traces, Thresholds(args.high, args.rising), args.votes, args.out, title)


def _config(args: Namespace) -> Config:
    from backtrack_mrt.cli.run_or_model import config_of

    args.what = args.model
    if args.server is not None and args.model is None and "--model.name_or_path" not in args.settings:
        from backtrack_mrt.rollouts.assembly import served_name

        args.settings = [*args.settings, "--model.name_or_path", served_name(args.server, "--server")]
    return config_of(args, with_model=args.model is not None)


def _parts(config: Config, args: Namespace) -> Assembly | None:
    """What is asked; nothing for traces alone."""
    if args.server is not None:
        from backtrack_mrt.rollouts.assembly import assemble_served

        return assemble_served(config, args.server)
    if args.model is None:
        return None
    from backtrack_mrt.rollouts.assembly import assemble

    return assemble(config)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"not a number above 0 and at most 1: {text!r}")
    return value
