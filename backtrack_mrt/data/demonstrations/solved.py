r"""Demonstrations of backtracking from problems with written solutions: the warm start of a real language model.

A line of the solution becomes a step. Some demonstrations show a right attempt and its check. In the others one step of
the attempt is wrong and the later ones follow it (`equations`, beside this); the check names it, and the solution is
revised from there. *Errors are injected but never learnt*: from the wrong step on, the attempt carries no loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backtrack_mrt.data.catalogue import read_set
from backtrack_mrt.data.demonstrations.equations import Step, number, one_operation, parse_step, wrong_solution
from backtrack_mrt.data.demonstrations.files import DemoTurns, Span
from backtrack_mrt.data.problems import ANSWER_COLUMNS, QUESTION_COLUMNS
from backtrack_mrt.data.sources import column
from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Problem

_SOLUTION = "solution"
_RESULT = "\n#### "  # GSM8K on the hub: solution and result in one column
_FIELD = "SOLVED"  # what the script calls the data set


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem and its right solution in steps."""

    problem: Problem
    steps: tuple[Step, ...]

    @property
    def length(self) -> int:
        """Characters of question and solution."""
        return len(self.problem.question) + sum(len(step.text) for step in self.steps)


def read_solved(spec: str) -> tuple[list[Solved], int]:
    """The usable problems of a file or a hub data set, and how many others it has. Usable: every line of the solution
    has one right equation (see `Step`), and the last one gives the answer.

    Columns: problem or question, answer, solution; or the solution in `answer`, with a last line ``#### result``. In a
    set without solutions, the problems are usable that one operation solves (`one_operation`). Raises UserError for a
    set that cannot be read and a row without text in one of these columns."""
    name, rows = read_set(spec, _FIELD)
    question, answer = (column(rows[0][1], wanted, _FIELD, spec) for wanted in (QUESTION_COLUMNS, ANSWER_COLUMNS))
    solved = _SOLUTION in rows[0][1] or _RESULT in str(rows[0][1][answer])
    usable = []
    for index, (where, row) in enumerate(rows):
        columns = row if isinstance(row, dict) else {}
        solution, _, gold = str(columns.get(answer, "")).rpartition(_RESULT)
        texts: dict[str, Any] = {question: columns.get(question), answer: gold}
        if solved:
            texts[_SOLUTION] = columns.get(_SOLUTION) or solution
        for key, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise UserError(_FIELD, spec, f"{where} has no text in column {key!r}", "Complete or remove the row.")
        gold = gold.strip()
        if steps := _written(texts[_SOLUTION], gold) if solved else _worked_out(texts[question], gold):
            identity = str(columns.get("id") or f"{name}/{index}")
            problem = Problem(identity, texts[question], gold, str(columns.get("source") or name))
            usable.append(Solved(problem, steps))
    return usable, len(rows) - len(usable)


def demonstrate_solved(solved: Solved, rng: random.Random, right: float) -> DemoTurns:
    """One demonstration: with probability `right` (or if no error can be put in) of a right attempt, else of a wrong
    one that is revised. The last turn is the verdict "no error"."""
    steps = solved.steps
    if rng.random() >= right:
        for wrong in rng.sample(range(len(steps)), len(steps)):
            shown = wrong_solution(steps, wrong, rng)
            if shown is not None:
                return _revised(solved, wrong, shown)
    return [
        (BacktrackPhase.ATTEMPT, (Span(_solution(steps, 0, solved.problem.answer)),)),
        (BacktrackPhase.DETECT, _all_right(steps)),
    ]


def _written(solution: str, gold: str) -> tuple[Step, ...]:
    """The lines of a solution as steps; none if a line is no step or the last one does not give `gold`."""
    lines = [line.strip() for line in _without_notes(solution).split("\n") if line.strip()]
    steps = tuple(step for line in lines if (step := parse_step(line)) is not None)
    return steps if len(steps) == len(lines) and number(steps[-1].value) == number(gold) else ()


def _worked_out(question: str, gold: str) -> tuple[Step, ...]:
    step = one_operation(question, gold)
    return () if step is None else (step,)


def _revised(solved: Solved, wrong: int, shown: Sequence[Step]) -> DemoTurns:
    """The attempt `shown`, whose step `wrong` (0-based) is the first wrong one, and what to do about it."""
    steps, answer = solved.steps, solved.problem.answer
    attempt = _solution(shown, 0, shown[-1].value)
    learnt = len(_numbered(shown[:wrong], 0)) + len(f"## Step {wrong + 1}:")
    bad, good = shown[wrong], steps[wrong]
    # A slip keeps the left side; else the operation was wrong.
    fault = f"{good.equation}, not {bad.value}" if bad.left == good.left else f"{good.equation}, not {bad.left}"
    checks = [*_checks(steps[:wrong]), f"Step {wrong + 1}: {fault}."]
    return [
        (BacktrackPhase.ATTEMPT, (Span(attempt[:learnt]), Span(attempt[learnt:], learn=False))),
        (BacktrackPhase.DETECT, (Span("\n".join([*checks, f"Error in step {wrong + 1}"])),)),
        (BacktrackPhase.BACKTRACK, (Span(f"Backtrack to step {wrong}"),)),
        (BacktrackPhase.REVISE, (Span(_solution(steps[wrong:], wrong, answer)),)),
        (BacktrackPhase.DETECT, _all_right(steps)),
    ]


def _solution(steps: Sequence[Step], first: int, answer: str) -> str:
    return _numbered(steps, first) + f"\\boxed{{{answer}}}"


def _numbered(steps: Sequence[Step], first: int) -> str:
    return "".join(f"## Step {k}: {step.text}\n" for k, step in enumerate(steps, first + 1))


def _all_right(steps: Sequence[Step]) -> tuple[Span, ...]:
    return (Span("\n".join([*_checks(steps), "No error"])),)


def _checks(steps: Sequence[Step]) -> list[str]:
    return [f"Step {k}: {step.equation}, right." for k, step in enumerate(steps, 1)]


def _without_notes(solution: str) -> str:
    """The solution without GSM8K's calculator notes: ``48/2 = <<48/2=24>>24``."""
    pieces = solution.split("<<")
    return pieces[0] + "".join(piece.partition(">>")[2] for piece in pieces[1:])
