"""Labelled attempts of other models: one row per attempt, with the columns problem (or question), answer, attempt and
is_correct. An attempt is rewritten in the form of the protocols: a line is a step, the last line gives the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backtrack_mrt.data.catalogue import read_set
from backtrack_mrt.data.problems import ANSWER_COLUMNS, QUESTION_COLUMNS
from backtrack_mrt.data.sources import column
from backtrack_mrt.errors import UserError
from backtrack_mrt.grading.extract import extract_boxed
from backtrack_mrt.types import Problem

_FIELD = "--attempts"
_ANSWER = re.compile(r"(?:####|A:|Answer:|The answer is:?)\s*(?P<answer>.*[^\s.])\.?\s*")
_NUMBERING = re.compile(r"(?:#+\s*)?Step\s+\d+\s*[:.]\s*")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt in numbered steps, and whether it is right."""

    problem: Problem
    text: str
    right: bool


def read_attempts(spec: str) -> tuple[list[Attempt], int]:
    """The attempts of a file or hub data set, and how many others had no steps or no answer. Raises UserError for a set
    that cannot be read and a row that is none."""
    name, rows = read_set(spec, _FIELD)
    first = rows[0][1]
    question, answer = (column(first, wanted, _FIELD, spec) for wanted in (QUESTION_COLUMNS, ANSWER_COLUMNS))
    for wanted in ("attempt", "is_correct"):
        column(first, (wanted,), _FIELD, spec)
    attempts, unusable = [], 0
    for where, row in rows:
        texts = [row.get(key) if isinstance(row, dict) else None for key in (question, "attempt")]
        if not all(isinstance(text, str) and text.strip() for text in texts) or not isinstance(row["is_correct"], bool):
            reason = f"{where} needs text in {question!r} and 'attempt', and true or false in 'is_correct'"
            raise UserError(_FIELD, spec, reason, "Complete or remove the row.")
        gold = str(row[answer]).strip()
        identity = str(row.get("id") or f"{name}/{texts[0]}")
        text = in_steps(row["attempt"])
        if text is None:
            unusable += 1
        else:
            attempts.append(Attempt(Problem(identity, row[question], gold, name), text, row["is_correct"]))
    return attempts, unusable


def in_steps(text: str) -> str | None:
    """`## Step 1: …` for each line and the boxed answer of the last one; None without a step or an answer."""
    *lines, last = [line.strip() for line in text.split("\n") if line.strip()] or [""]
    found = _ANSWER.fullmatch(last)
    answer = found["answer"] if found else extract_boxed(last)
    if not lines or not answer:
        return None
    steps = [f"## Step {k}: {_NUMBERING.sub('', line, count=1)}" for k, line in enumerate(lines, 1)]
    return "\n".join([*steps, f"\\boxed{{{answer}}}"])
