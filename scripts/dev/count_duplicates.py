#!/usr/bin/env python
"""Count how many problems of one set occur in others, word for word and as near copies.

    python scripts/dev/count_duplicates.py math=MATH.jsonl math500 --lengths 8 13 --show 3

Sets are named as in the config. For runs of so many words: how many problems of the first set share a run with one of
the others at all, how many share half of the runs of the one that has fewer, and how many of either have its answer.
Training leaves out those that share half of the runs of 8. --show prints the pairs next to one half.
"""

from __future__ import annotations

import argparse

from backtrack_mrt.data.duplicates import RUN, SHARE, Overlap, words_in
from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.errors import run_main
from backtrack_mrt.grading import MathGrader, Verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", metavar="SET", help="whose problems are counted")
    parser.add_argument("held_out", metavar="SET", nargs="+", help="in which they are looked for")
    parser.add_argument("--lengths", type=int, nargs="+", default=[RUN], metavar="N", help="words in a run")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="pairs to print")
    args = parser.parse_args()
    problems = {words_in(problem.question): problem for problem in load_problems([args.train], None, 0, field="SET")}
    others = {words_in(problem.question): problem for problem in load_problems(args.held_out, None, 0, field="SET")}
    different = {question: problem for question, problem in problems.items() if question not in others}
    print(f"{len(problems)} in {len(others)} questions: {len(problems) - len(different)} the same")
    for length in args.lengths:
        overlap = Overlap(others, length)
        pairs = [
            (share, problem, others[other])
            for question, problem in different.items()
            for share, other in [overlap.nearest(question)]
            if share > 0
        ]
        with MathGrader() as grader:
            verdicts = grader.grade_many((other.answer, problem.answer) for _, problem, other in pairs)
        answered = [pair[0] for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is Verdict.RIGHT]
        half, half_answered = (sum(share >= SHARE for share in shares) for shares in ([p[0] for p in pairs], answered))
        print(
            f"runs of {length}: {len(pairs)} more share one ({len(answered)} with its answer), "
            f"{half} share half ({half_answered})"
        )
        for share, problem, other in sorted(pairs, key=lambda pair: abs(pair[0] - SHARE))[: args.show]:
            print(f"  {share:.2f} {problem.id}: {problem.question!r}\n       {other.id}: {other.question!r}")


if __name__ == "__main__":
    run_main(main)
