"""Evaluate a run's model, any model, or stored trajectories.

A run brings its config; for a model it is that of tiny.yaml, unless --config says otherwise. With --traces no model is
loaded; docs/formats.md has the form of the file.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backtrack_mrt.cli.api import evaluate
from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_file, check_new_folder, typed_path
from backtrack_mrt.cli.run_or_model import config_of, run_of
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.metrics.summary import Cuts

EXAMPLES = """\
  backtrack-mrt evaluate runs/RUN --evaluation.samples 16
  backtrack-mrt evaluate tiny --data.eval_size 256
  backtrack-mrt evaluate --traces FILE.jsonl
  backtrack-mrt evaluate runs/RUN --traces FILE.jsonl                 # cut at the limits of RUN
  backtrack-mrt evaluate --traces OURS.jsonl --against BASE.jsonl     # also token efficiency, and BASE's maj@k"""


def arguments(parser: Parser) -> None:
    parser.take_model()
    add = parser.add_argument
    add("--traces", type=typed_path, metavar="FILE", help="trajectories to analyse, without a model")
    add("--against", type=typed_path, metavar="FILE", help="another policy's trajectories, with --traces")
    add("--save", type=typed_path, metavar="FOLDER", help="new directory for the model's trajectories")
    add("--out", type=typed_path, metavar="FILE", help="all numbers (default: evaluation.json, RUN's or here)")


def run(args: Namespace) -> None:
    _check(args)
    config = config_of(args, with_model=args.traces is None)
    run = run_of(args.what)
    out = args.out or (run or Path()) / "evaluation.json"
    check_file("--out", out)
    from rich.console import Console

    from backtrack_mrt.evaluation.tables import rivalry_table, tables
    from backtrack_mrt.runs.jsonl import json_text

    limits = Cuts.of(config.protocol, config.protocol.prolonged(config.evaluation.extra_revisions))
    found: dict[str, Any] = {"config": config.resolved()}
    if args.traces:
        from backtrack_mrt.data.signs import first_wrong_step
        from backtrack_mrt.evaluation.evaluate import read_graded
        from backtrack_mrt.evaluation.metrics.summary import summarise
        from backtrack_mrt.evaluation.rivals import rivalry

        ours = read_graded(args.traces, config.grading)
        theirs = read_graded(args.against, config.grading) if args.against else []
        told = {setting.partition("=")[0] for setting in args.settings}
        if run is None and "--config" not in told:
            limits = Cuts.found([*ours, *theirs])
        protocol = config.protocol if run or told & {"--config", "--env"} else None
        found = {"traces": [str(path) for path in (args.traces, args.against) if path]}
        summary = summarise(ours, limits, first_wrong_step, protocol, config.evaluation.budgets)
        if args.against:
            against = rivalry(ours, theirs, limits)
            found["against"] = asdict(against)
            Console().print(rivalry_table(against))
    else:
        summary = evaluate(config, args.save)
    for table in tables(summary, limits.answers, str(args.traces or args.what)):
        Console().print(table)
    out.write_text(json_text(found | {"summary": asdict(summary)}), encoding="utf-8")
    print(f"numbers: {out}")


def _check(args: Namespace) -> None:
    """Refuse options that do not go together."""
    if args.what is None and args.traces is None:
        raise UserError(
            "RUN", None, "nothing to evaluate", "Name a run or a model first, or give --traces; see --help."
        )
    if args.against and not args.traces:
        raise UserError("--against", str(args.against), "nothing to hold against it", "Give --traces, too.")
    if args.save and args.traces:
        raise UserError("--save", str(args.save), "no model is evaluated with --traces", "Leave --save out.")
    if args.save:
        check_new_folder("--save", args.save)
