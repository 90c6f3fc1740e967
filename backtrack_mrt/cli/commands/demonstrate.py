"""Write demonstrations for a warm start, from written solutions.

SOLVED has the columns problem (or question), answer and solution, or GSM8K's two. Problems are used whose solutions
hold one equation of numbers per line, or, in a set without solutions, that one operation on numbers of the question
solves; of these the shortest. In most demonstrations a step of the attempt is wrong, and then found, discarded and
revised; the wrong part carries no loss.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Sequence

from backtrack_mrt.cli.command import Parser, natural
from backtrack_mrt.cli.places import typed_path
from backtrack_mrt.data.demonstrations.files import write_demonstrations
from backtrack_mrt.data.demonstrations.solved import Solved, demonstrate_solved, read_solved
from backtrack_mrt.data.duplicates import SHARE, Overlap, words_in
from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.errors import UserError

EXAMPLES = """\
  backtrack-mrt demonstrate openai/gsm8k/main:train --out traces.jsonl
  backtrack-mrt demonstrate mawps gsm8k --held-out asdiv --out traces.jsonl --n 240
  backtrack-mrt train --algo sft --data.traces traces.jsonl"""


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("solved", nargs="+", metavar="SOLVED", help=".jsonl, .json, .csv, .parquet files or hub sets")
    held_out = "problems to evaluate on: none like them is demonstrated"
    add("--held-out", nargs="+", default=[], metavar="SET", help=held_out)
    add("--out", type=typed_path, required=True, metavar="FILE", help="JSONL file to write")
    add("--n", type=natural, default=256, help="demonstrations, one per problem (default: %(default)s)")
    add("--max-steps", type=natural, default=4, help="most steps of a solution (default: %(default)s)")
    add("--right", type=float, default=0.3, help="share of right attempts (default: %(default)s)")
    add("--seed", type=int, default=0, help="which errors, and the order (default: %(default)s)")


def run(args: Namespace) -> None:
    if not 0 <= args.right <= 1:
        raise UserError("--right", args.right, "not a share", "Use a number from 0 to 1, such as 0.3.")
    sets = [read_solved(spec) for spec in args.solved]
    every = sum(len(usable) + unusable for usable, unusable in sets)
    short = [solved for usable, _ in sets for solved in usable if len(solved.steps) <= args.max_steps]
    asked = load_problems(args.held_out, None, args.seed, field="--held-out") if args.held_out else []
    fitting = _once(short, Overlap(words_in(problem.question) for problem in asked))
    if len(fitting) < args.n:
        reason = (
            f"only {len(fitting)} of {every} problems have a solution of one equation per step, at most "
            f"{args.max_steps} steps, and are neither held out nor a repetition"
        )
        raise UserError("--n", args.n, reason, f"Set --n to at most {len(fitting)}, or raise --max-steps.")
    chosen = sorted(fitting, key=lambda solved: solved.length)[: args.n]
    random.Random(f"order/{args.seed}").shuffle(chosen)
    made = (
        (solved.problem, demonstrate_solved(solved, random.Random(f"{args.seed}/{solved.problem.id}"), args.right))
        for solved in chosen
    )
    write_demonstrations(args.out, made)
    print(f"{args.out}: {len(chosen)} demonstrations ({len(fitting)} of {every} problems would do)")


def _once(given: Sequence[Solved], held_out: Overlap) -> list[Solved]:
    """Each question once, and none that is like a held-out one."""
    kept = {}
    for solved in given:
        question = words_in(solved.problem.question)
        if held_out.nearest(question)[0] < SHARE and not held_out.has(question):
            kept[question] = solved
    return list(kept.values())
