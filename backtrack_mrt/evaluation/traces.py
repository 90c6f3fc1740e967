"""Stored traces of any program, with values: kept, or computed by the model that is asked now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.evaluate import read_graded
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.replay import retold
from backtrack_mrt.rollouts.rollout import grade
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.types import Problem, Scored

_QUESTION, _GOLD = ("question", "problem", "prompt"), ("answer", "solution", "gold", "target")
_TEXT = ("completion", "response", "output", "generation", "text")
_FORM = "A row has `problem` and `turns`, or `question`, `answer` and `completion` (or `messages`): docs/formats.md."
_AT_ONCE = 64  # trajectories that are valued together


def read_traces(path: Path, parts: Assembly | None, grader: Grader) -> list[Scored]:
    """The trajectories of a file, graded (by `grader`, where the file does not say) and with values: those of the model
    of `parts`, without one those of the file. Raises UserError."""
    rows = list(jsonl.read(path, _told, what="a trace", field="--traces", remedy=_FORM))
    if not rows:
        raise UserError("--traces", str(path), "the file is empty", "Give a file with one trace per line.")
    whole = [row for row in rows if row is not None]
    if whole and len(whole) < len(rows):
        raise UserError("--traces", str(path), "rows of two forms", "Write all in one form.")
    if not whole:
        scored = read_graded(path, grader)
        if parts is not None:
            scored = [_in_tokens(s, parts) for s in scored]
    elif parts is None:
        reason = "the rows have texts, whose tokens and values only a model knows"
        raise UserError("--traces", str(path), reason, "Name one, with --server or --model.")
    else:
        protocol = parts.config.protocol
        trajectories = [retold(problem, [text], protocol, parts.dialogue) for problem, text in whole]
        scored = [Scored(trajectory) for trajectory in grade(trajectories, parts.grader)]
    if parts is not None:
        return _valued(scored, parts)
    if missing := sum(s.values is None for s in scored):
        reason = f"{missing} of {len(scored)} trajectories have no values"
        raise UserError("--traces", str(path), reason, "Name a model that computes them, with --server or --model.")
    return scored


def _valued(scored: Sequence[Scored], parts: Assembly) -> list[Scored]:
    prover, found = parts.prover(), list[Scored]()
    with progress(len(scored), "values") as bar:
        for start in range(0, len(scored), _AT_ONCE):
            some = scored[start : start + _AT_ONCE]
            values = prover.values([s.trajectory for s in some])
            found += [replace(s, values=row) for s, row in zip(some, values, strict=True)]
            bar.update(len(some))
    return found


def _in_tokens(scored: Scored, parts: Assembly) -> Scored:
    """A trajectory of another program, whose ids are not known, as one message of this model."""
    trajectory = scored.trajectory
    if trajectory.prompt_ids and min(trajectory.token_ids) >= 0:
        return scored
    texts = [turn.text for turn in trajectory.turns]
    told = retold(trajectory.problem, texts, parts.config.protocol, parts.dialogue)
    return Scored(replace(told, answer=trajectory.answer, outcome=trajectory.outcome, verdict=trajectory.verdict))


def _told(row: Any) -> tuple[Problem, str] | None:
    """Problem and text of a row; None for one of this project's form. Raises ValueError."""
    if not isinstance(row, Mapping):
        raise ValueError("no object")
    if "turns" in row:
        return None
    question, gold = (_first(row, names) for names in (_QUESTION, _GOLD))
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        text = str(messages[-1].get("content") or "")
        asked = next((str(m.get("content")) for m in reversed(messages[:-1]) if m.get("role") == "user"), None)
        question = question or asked
    else:
        text = _first(row, _TEXT) or ""
    if question is None or gold is None or not text:
        missing = "question" if question is None else "answer" if gold is None else "completion"
        raise ValueError(f"{missing!r} is missing")
    source = str(row.get("source") or "traces")
    name = row.get("id") or f"{source}/{sha256(question.encode()).hexdigest()[:12]}"
    return Problem(str(name), question, gold, source), text


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name) is not None), None)
