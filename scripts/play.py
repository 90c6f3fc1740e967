#!/usr/bin/env python
"""Solve problems in the terminal, turn by turn, by hand or with a model.

python scripts/play.py                                    # by hand, with the embedded model's values
python scripts/play.py runs/RUN --watch --problem 3       # Enter by Enter through what a trained model does
python scripts/play.py --env retry --no-model             # by hand alone; loads a tokenizer and nothing else
python scripts/play.py MODEL --question 'What is 2+3?' --answer 5 --save mine.jsonl
python scripts/play.py --watch < /dev/null                # one trajectory of the model, without a terminal

Other flags are those of train_backtrack.py; its --help lists them. docs/play.md has a session.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from backtrack_mrt.cli.game import Game
from backtrack_mrt.cli.request import load_config
from backtrack_mrt.cli.terminal import Session, check_appendable, choose
from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.grading import Grader, check_gold
from backtrack_mrt.policy.files import resolve
from backtrack_mrt.policy.models import load_tokenizer
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.types import Problem


def main() -> None:
    options, flags = parse(sys.argv[1:])
    run = options.what if options.what and (options.what / "config.yaml").is_file() else None
    saved = ["--config", str(run / "config.yaml")] if run else []
    named = ["--model.name_or_path", str(run / "model" if run else options.what)] if options.what else []
    config = load_config([*saved, *flags, *named]).config
    problems = load_problems(
        config.data.eval, config.data.eval_size, config.data.seed, field="data.eval", sets=config.data.sets
    )
    first = own_problem(options.question, options.answer)
    resolve(config.model)
    first = first or choose(problems, options.problem)
    if options.save:
        check_appendable(options.save, "--save")
    from backtrack_mrt.rollouts.assembly import assemble, dialogue_with  # late: a mistake must not wait for torch

    with ExitStack() as stack:
        if options.no_model:
            prompts = load_prompts(config.env, config.prompts)
            dialogue, grader, model = dialogue_with(load_tokenizer(config.model), prompts), Grader(workers=1), None
        else:
            parts = assemble(config)
            stack.callback(parts.engine.close)
            parts.engine.sync(-1)
            dialogue, grader, model = parts.dialogue, parts.grader, parts.collector(config.protocol, with_values=True)
        stack.callback(grader.close)

        def begin(problem: Problem) -> Game:
            return Game(problem, config.protocol, dialogue, grader, model, config.evaluation.temperature, config.seed)

        Session(problems, begin, dialogue.chat, watch=options.watch, save=options.save, ids=options.ids).run(first)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the flags for the config. `what` is the run or model, None without."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--problem", default="0", metavar="ID", help="id or index in data.eval (default: 0)")
    parser.add_argument("--question", metavar="TEXT", help="a question of your own, with --answer")
    parser.add_argument("--answer", metavar="GOLD", help="its gold answer")
    parser.add_argument("--watch", action="store_true", help="Enter lets the model take the turn")
    parser.add_argument("--no-model", action="store_true", help="load the tokenizer alone: no values")
    parser.add_argument("--save", type=Path, metavar="FILE", help="append trajectories to this JSONL file")
    parser.add_argument("--ids", action="store_true", help="show every token with its id")
    named = bool(arguments) and not arguments[0].startswith("-")
    options, flags = parser.parse_known_args(arguments[named:])
    options.what = Path(arguments[0]) if named else None
    if options.watch and options.no_model:
        raise UserError("--watch", "--no-model", "there is nothing to watch without a model", "Give one of them.")
    return options, flags


def own_problem(question: str | None, answer: str | None) -> Problem | None:
    """The problem on the command line, if there is one. Raises UserError."""
    if question is None and answer is None:
        return None
    if not question or not question.strip():
        raise UserError("--question", question, "there is no question", "Give --question and --answer.")
    if answer is None:
        raise UserError("--answer", answer, "a question needs its gold answer", "Give --answer, too.")
    if why := check_gold(answer):
        raise UserError("--answer", answer, f"it {why}", "Give an answer that can be graded.")
    return Problem("typed", question, answer, "typed")


if __name__ == "__main__":
    run_main(main)
