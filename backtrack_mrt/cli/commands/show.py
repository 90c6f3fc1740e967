"""Print trajectories as readable traces."""

from __future__ import annotations

from argparse import Namespace

from backtrack_mrt.cli.command import Parser, natural
from backtrack_mrt.cli.places import typed_path

EXAMPLES = """\
  backtrack-mrt show runs/RUN/trajectories/evaluation_trained.jsonl --n 2
  backtrack-mrt show runs/RUN/trajectories/step_000010.jsonl --phase revise --right"""


def arguments(parser: Parser) -> None:
    parser.add_argument("file", type=typed_path, metavar="FILE.jsonl", help="trajectories that a run has written")
    parser.add_argument("--n", type=natural, default=3, help="traces to show (default: %(default)s)")
    parser.add_argument("--phase", help="only those with an accepted turn of this phase, such as revise")
    parser.add_argument("--right", action="store_true", help="only those whose final answer is right")


def run(args: Namespace) -> None:
    from backtrack_mrt.runs.records import read_trajectories
    from backtrack_mrt.runs.trace import render_trace

    scored = read_trajectories(args.file)
    found = [
        s
        for s in scored
        if (args.phase is None or any(turn.parsed and turn.spec.phase == args.phase for turn in s.trajectory.turns))
        and (s.trajectory.outcome == 1 or not args.right)
    ]
    for s in found[: args.n]:
        print(render_trace(s.trajectory, s.values), end=f"\n{'─' * 80}\n\n")
    print(f"{min(args.n, len(found))} of {len(found)} such traces, of {len(scored)} in the file")
