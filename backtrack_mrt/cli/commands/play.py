"""Solve problems turn by turn, by hand or with a model.

docs/play.md has a session.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import ExitStack
from functools import cache

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import typed_path
from backtrack_mrt.cli.run_or_model import config_of
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.runs import environment
from backtrack_mrt.types import Problem

EXAMPLES = """\
  backtrack-mrt play                                    # by hand, with the embedded model's values
  backtrack-mrt play runs/RUN --watch --problem 3       # Enter by Enter through what a trained model does
  backtrack-mrt play --env retry --no-model             # by hand alone; loads a tokenizer and nothing else
  backtrack-mrt play MODEL --question 'What is 2+3?' --answer 5 --save mine.jsonl
  backtrack-mrt play --watch < /dev/null                # one trajectory of the model, without a terminal"""


def arguments(parser: Parser) -> None:
    parser.take_model()
    parser.add_argument("--problem", default="0", metavar="ID", help="id or index in data.eval (default: 0)")
    parser.add_argument("--question", metavar="TEXT", help="a question of your own, with --answer")
    parser.add_argument("--answer", metavar="GOLD", help="its gold answer")
    parser.add_argument("--watch", action="store_true", help="Enter lets the model take the turn")
    parser.add_argument("--no-model", action="store_true", help="load the tokenizer alone: no values")
    parser.add_argument("--save", type=typed_path, metavar="FILE", help="append trajectories to this JSONL file")
    parser.add_argument("--ids", action="store_true", help="show every token with its id")


def run(args: Namespace) -> None:
    if args.watch and args.no_model:
        raise UserError("--watch", "--no-model", "there is nothing to watch without a model", "Give one of them.")
    config = config_of(args)
    from backtrack_mrt.cli.game import Game
    from backtrack_mrt.cli.terminal import Session, check_appendable, choose
    from backtrack_mrt.data.loading import load_held_out
    from backtrack_mrt.policy.files import find_model

    problems = cache(lambda: load_held_out(config.data, config.grading)[0])  # perhaps never read
    first = own_problem(args.question, args.answer, config.grading)
    find_model(config.model)
    first = first or choose(problems(), args.problem)
    if args.save:
        check_appendable(args.save, "--save")
    with environment.importing():  # late: a mistake must not wait for torch
        from backtrack_mrt.policy.models import load_tokenizer
        from backtrack_mrt.rollouts.assembly import assemble, dialogue_with, prompts_of
        from backtrack_mrt.rollouts.chat import ChatFormat

    with ExitStack() as stack:
        if args.no_model:
            dialogue = dialogue_with(load_tokenizer(config.model), prompts_of(config), config.model.thinking)
            grader, model = config.grading.opened().counting(), None
        else:
            parts = assemble(config)
            stack.callback(parts.engine.close)
            parts.engine.sync()
            dialogue, grader, model = parts.dialogue, parts.grader, parts.collector(config.protocol, with_values=True)
        stack.callback(grader.close)
        assert isinstance(dialogue.chat, ChatFormat)

        def begin(problem: Problem) -> Game:
            return Game(problem, config.protocol, dialogue, grader, model, config.evaluation.temperature, config.seed)

        Session(problems, begin, dialogue.chat, watch=args.watch, save=args.save, ids=args.ids).run(first)


def own_problem(question: str | None, answer: str | None, grader: Grader) -> Problem | None:
    """The problem on the command line, if there is one. Raises UserError."""
    if question is None and answer is None:
        return None
    if not question or not question.strip():
        raise UserError("--question", question, "there is no question", "Give --question and --answer.")
    if answer is None:
        raise UserError("--answer", answer, "a question needs its gold answer", "Give --answer, too.")
    if why := grader.refusal(answer):
        raise UserError("--answer", answer, f"it {why}", "Give an answer that can be graded.")
    return Problem("typed", question, answer, "typed")
