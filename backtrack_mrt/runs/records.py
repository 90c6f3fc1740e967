"""Trajectories as JSONL: one scored trajectory per line, complete enough to train on again.

    problem    {id, question, answer, source, rel_tol, canary}
    prompt_ids [ids of the prompt]
    turns      [{phase, max_new_tokens, fields, text, parsed, violation, right, instruction_ids, token_ids,
                 logprobs, finish}]
    stop       finished | turn_limit | budget | violation | null (still going on)
    answer     the final answer that stands, or null
    outcome    1.0, 0.0 or null (not graded)
    verdict    right | wrong | unparsable | timeout | null
    given      leading turns that were not sampled in this rollout (0 unless it was branched)
    values     [V_0 … V_E] or null
    weights    one per turn, what the algorithm trained it with, or null

`parsed` is null or {answer, steps, step, verdict}: see `backtrack_mrt.types.Parsed`. NaN is written as null.

Of trajectories that other programs write only `problem` {id, question, answer} and `turns` are needed, and of a turn
`answer` or `text` (its last box is then the answer) and `tokens`, their number, or `token_ids`. What is missing is
filled in: ids that are not known are -1, log-probabilities NaN; the first turn is an attempt, later ones are revisions;
the trajectory is finished, and its answer is the last one given. Such trajectories can be analysed, not trained on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backtrack_mrt.errors import UserError
from backtrack_mrt.grading.extract import extract_boxed
from backtrack_mrt.runs.durable import replacing
from backtrack_mrt.runs.processes import main_only
from backtrack_mrt.types import (
    Completion,
    Finish,
    FloatArray,
    Parsed,
    Phase,
    Problem,
    Scored,
    StopReason,
    TokenIds,
    Trajectory,
    Turn,
    TurnSpec,
)

MOST_TOKENS = 10_000_000  # of a turn of which only their number is known
# What a line that is no trajectory raises.
_NONE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@main_only
def write_trajectories(path: Path, scored: Iterable[Scored]) -> None:
    """Write one line per trajectory; an older file of that name is replaced."""
    with replacing(path) as file:
        file.writelines(map(_line, scored))


def append_trajectories(path: Path, scored: Iterable[Scored]) -> None:
    """Write one line per trajectory behind those that the file holds; it need not be there yet."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read() == b"\n" else b"\n")
        file.writelines(_line(member).encode() for member in scored)


def read_trajectories(path: str | Path) -> list[Scored]:
    """The trajectories of a file. Raises UserError if it cannot be read, naming the line that is not one."""
    scored = []
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    scored.append(from_record(json.loads(line)))
                except _NONE as error:
                    reason = f"line {number} is not a trajectory: {_told(error)}"
                    raise UserError("trajectories", str(path), reason, "docs/formats.md has the form.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("trajectories", str(path), f"cannot be read: {error}", "Give a JSONL file in UTF-8.") from error
    return scored


def _line(scored: Scored) -> str:
    line = json.dumps(as_record(scored), ensure_ascii=False, allow_nan=False)
    # A lone surrogate has no UTF-8; written out, as `\ud800`, it is the JSON escape of itself.
    return line.encode("utf-8", "backslashreplace").decode() + "\n"


def as_record(scored: Scored) -> dict[str, Any]:
    """Plain JSON data."""
    trajectory = scored.trajectory
    return {
        "problem": asdict(trajectory.problem),
        "prompt_ids": trajectory.prompt_ids,
        "turns": [_turn_record(turn) for turn in trajectory.turns],
        "stop": trajectory.stop,
        "answer": trajectory.answer,
        "outcome": _number(trajectory.outcome),
        "verdict": trajectory.verdict,
        "given": trajectory.given,
        "values": None if scored.values is None else _numbers(scored.values.tolist()),
        "weights": None if scored.weights is None else _numbers(scored.weights.tolist()),
    }


def from_record(record: dict[str, Any]) -> Scored:
    """The inverse of `as_record`; also of another program's record. Raises ValueError, KeyError or TypeError."""
    problem = record["problem"]
    turns = tuple(_turn(turn, first=j == 0) for j, turn in enumerate(record["turns"]))
    given = [turn.parsed.answer for turn in turns if turn.parsed is not None and turn.parsed.answer is not None]
    stop = record.get("stop", StopReason.FINISHED)
    named = str(problem["id"]), _text(problem["question"]), str(problem["answer"]), _text(problem.get("source") or "")
    rel_tol = problem.get("rel_tol")
    trajectory = Trajectory(
        problem=Problem(*named, None if rel_tol is None else float(rel_tol), bool(problem.get("canary"))),
        prompt_ids=_ids(record.get("prompt_ids") or ()),
        turns=turns,
        stop=None if stop is None else StopReason(stop),
        answer=_optional_text(record.get("answer", given[-1] if given else None)),
        outcome=_or_nan(record.get("outcome")),
        verdict=_optional_text(record.get("verdict")),
        given=_count(record.get("given", 0), most=len(turns)),
    )
    return Scored(trajectory, _array(record.get("values")), _array(record.get("weights")))


def _turn_record(turn: Turn) -> dict[str, Any]:
    return {
        "phase": turn.spec.phase,
        "max_new_tokens": turn.spec.max_new_tokens,
        "fields": dict(turn.spec.fields),
        "text": turn.text,
        "parsed": None if turn.parsed is None else asdict(turn.parsed),
        "violation": turn.violation,
        "right": turn.right,
        "instruction_ids": turn.instruction_ids,
        "token_ids": turn.completion.token_ids,
        "logprobs": _numbers(turn.completion.logprobs),
        "finish": turn.completion.finish,
    }


def _turn(record: dict[str, Any], first: bool) -> Turn:
    token_ids = _ids(record["token_ids"]) if "token_ids" in record else _unknown(_count(record["tokens"]))
    text = _text(record.get("text") or "")
    logprobs = record.get("logprobs")
    return Turn(
        spec=TurnSpec(
            _text(record.get("phase") or (Phase.ATTEMPT if first else Phase.REVISE)),
            _count(record.get("max_new_tokens", len(token_ids))),
            {_text(name): _text(field) for name, field in (record.get("fields") or {}).items()},
        ),
        text=text,
        parsed=_parsed(record, text),
        instruction_ids=_ids(record.get("instruction_ids") or ()),
        completion=Completion(
            token_ids=token_ids,
            logprobs=(math.nan,) * len(token_ids) if logprobs is None else tuple(map(_or_nan, logprobs)),
            finish=Finish(record.get("finish", Finish.STOP)),
        ),
        violation=_optional_text(record.get("violation")),
        right=_optional_bool(record.get("right")),
    )


def _parsed(record: dict[str, Any], text: str) -> Parsed | None:
    if "parsed" in record:
        parsed = record["parsed"]
        if parsed is None:
            return None
        step, steps = parsed.get("step"), parsed.get("steps") or ()
        return Parsed(
            answer=_optional_text(parsed.get("answer")),
            steps=tuple(_text(written) for written in steps),
            step=None if step is None else _count(step),
            verdict=_optional_bool(parsed.get("verdict")),
        )
    if "answer" not in record and "text" not in record:
        raise KeyError("text")
    answer = record.get("answer", extract_boxed(text))
    return None if record.get("violation") else Parsed(answer=None if answer is None else str(answer))


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else repr(error)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_short(value)} is not a text")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _optional_bool(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{_short(value)} is neither true nor false")
    return value


def _ids(values: Any) -> TokenIds:
    ids = tuple(values)
    if not all(type(token) is int for token in ids):
        raise ValueError(f"{_short(ids)} are not token ids")
    return ids


def _count(value: Any, most: int = MOST_TOKENS) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{_short(value)} is not a number from 0 to {most}")
    return value


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:60]}…"


@lru_cache(maxsize=1024)
def _unknown(tokens: int) -> TokenIds:
    """So many ids that are not known; shared, since there may be millions of them."""
    return (-1,) * tokens


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _array(values: Sequence[float | None] | None) -> FloatArray | None:
    return None if values is None else np.array([_or_nan(value) for value in values], dtype=np.float64)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
