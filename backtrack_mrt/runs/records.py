"""Trajectories as JSONL: one scored trajectory per line, complete enough to train on again.

    problem    {id, question, answer, source, rel_tol, canary}
    prompt_ids [ids of the prompt]
    turns      [{phase, max_new_tokens, fields, text, parsed, violation, right, instruction_ids, token_ids,
                 logprobs, finish}]
    stop       finished | turn_limit | budget | violation | null (still going on)
    answer     the final answer that stands, or null
    outcome    the reward, 0.0 … 1.0, or null (not graded)
    verdict    right | partial | wrong | unevaluated | unparsable | timeout | null
    given      leading turns that were not sampled in this rollout (0 unless it was branched)
    values     [V_0 … V_E] or null
    frozen_values  the same by the frozen base's meta-prover, or null
    weights    one per turn, what the algorithm trained it with, or null

`parsed` is null or {answer, steps, step, verdict}: see `backtrack_mrt.types.Parsed`. NaN is written as null.

Of trajectories that other programs write only `problem` {id, question, answer} and `turns` are needed, and of a turn
`answer` or `text` (its last box is then the answer) and `tokens`, their number, or `token_ids`. What is missing is
filled in: ids that are not known are -1, log-probabilities NaN; a phase is "turn";
the trajectory is finished, and its answer is the last one given. Such trajectories can be analysed, not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Required

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one

from backtrack_mrt.grading.extract import extract_boxed
from backtrack_mrt.runs import jsonl
from backtrack_mrt.runs.kinds import no_file_of_trajectories
from backtrack_mrt.runs.processes import main_only
from backtrack_mrt.types import (
    Completion,
    Finish,
    FloatArray,
    Parsed,
    Problem,
    Scored,
    StopReason,
    TokenIds,
    Trajectory,
    Turn,
    TurnSpec,
)

UNNAMED = "turn"  # the phase of a turn that has none
MOST_TOKENS = 10_000_000  # of a turn of which only their number is known

_STRICT = ConfigDict(strict=True)
_Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
# Sums, differences and exponentials of these are numbers, too: not those of 1e308.
_Numbers = list[Annotated[float, Field(ge=-1e6, le=1e6)] | None]
_Logprobs = list[Annotated[float, Field(ge=-1e6, le=1e-3)] | None]  # rounding may lift a certain one above 0


class ProblemRow(TypedDict, total=False):
    """A problem as a row of a file."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: Required[Any]
    question: Required[str]
    answer: Required[Any]
    source: str | None
    rel_tol: float | None
    canary: bool | None


class _ParsedRow(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    answer: str | None
    steps: list[str] | None
    step: _Count | None
    verdict: bool | None


class _TurnRow(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    phase: str | None
    max_new_tokens: _Count
    fields: dict[str, str] | None
    text: str | None
    answer: Any
    parsed: _ParsedRow | None
    violation: str | None
    right: bool | None
    reward: float | None
    instruction_ids: list[int] | None
    token_ids: list[int]
    tokens: _Count
    logprobs: _Logprobs | None
    finish: Annotated[Finish, Field(strict=False)]


class _Row(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    problem: Required[ProblemRow]
    prompt_ids: list[int] | None
    turns: Required[list[_TurnRow]]
    stop: Annotated[StopReason, Field(strict=False)] | None
    answer: str | None
    outcome: Annotated[float, Field(ge=0, le=1)] | None
    verdict: str | None
    given: _Count
    values: _Numbers | None
    frozen_values: _Numbers | None
    weights: _Numbers | None


_ROWS = TypeAdapter(_Row)


@main_only
def write_trajectories(path: str | Path, scored: Iterable[Scored]) -> None:
    """Write one line per trajectory; an older file of that name is replaced."""
    jsonl.write(Path(path), map(as_record, scored))


def append_trajectories(path: str | Path, scored: Iterable[Scored]) -> None:
    """Write one line per trajectory behind those that the file holds; it need not be there yet."""
    jsonl.append(Path(path), map(as_record, scored))


def read_trajectories(path: str | Path) -> list[Scored]:
    """The trajectories of a file. Raises UserError if it cannot be read, naming the line that is not one."""
    if Path(path).is_dir():
        raise no_file_of_trajectories("trajectories", Path(path))
    remedy = "docs/formats.md has the form."
    return list(jsonl.read(Path(path), from_record, what="a trajectory", field="trajectories", remedy=remedy))


def as_record(scored: Scored) -> dict[str, Any]:
    """Plain JSON data."""
    trajectory = scored.trajectory
    return {
        "problem": asdict(trajectory.problem),
        "prompt_ids": list(trajectory.prompt_ids),
        "turns": [_turn_record(turn) for turn in trajectory.turns],
        "stop": trajectory.stop,
        "answer": trajectory.answer,
        "outcome": _number(trajectory.outcome),
        "verdict": trajectory.verdict,
        "given": trajectory.given,
        "values": None if scored.values is None else _numbers(scored.values.tolist()),
        "frozen_values": None if scored.frozen_values is None else _numbers(scored.frozen_values.tolist()),
        "weights": None if scored.weights is None else _numbers(scored.weights.tolist()),
    }


def from_record(record: Mapping[str, Any]) -> Scored:
    """The inverse of `as_record`; also of another program's record. Raises ValueError."""
    row = _ROWS.validate_python(record)
    turns = tuple(map(_turn, row["turns"]))
    if (given := row.get("given", 0)) > len(turns):
        raise ValueError(f"given = {given}: there are {len(turns)} turns")
    answers = [turn.parsed.answer for turn in turns if turn.parsed is not None and turn.parsed.answer is not None]
    trajectory = Trajectory(
        problem=problem_of(row["problem"]),
        prompt_ids=tuple(row.get("prompt_ids") or ()),
        turns=turns,
        stop=row.get("stop", StopReason.FINISHED),
        answer=row.get("answer", answers[-1] if answers else None),
        outcome=_or_nan(row.get("outcome")),
        verdict=row.get("verdict"),
        given=given,
    )
    values, weights, frozen = _array(row.get("values")), _array(row.get("weights")), _array(row.get("frozen_values"))
    return Scored(trajectory, values, weights, frozen_values=frozen)


def problem_of(row: ProblemRow) -> Problem:
    """The problem of a row."""
    source, canary = row.get("source") or "", bool(row.get("canary"))
    return Problem(str(row["id"]), row["question"], str(row["answer"]), source, row.get("rel_tol"), canary)


def _turn_record(turn: Turn) -> dict[str, Any]:
    return {
        "phase": turn.spec.phase,
        "max_new_tokens": turn.spec.max_new_tokens,
        "fields": dict(turn.spec.fields),
        "text": turn.text,
        "parsed": None if turn.parsed is None else asdict(turn.parsed) | {"steps": list(turn.parsed.steps)},
        "violation": turn.violation,
        "right": turn.right,
        **({} if turn.reward in (None, 0, 1) else {"reward": turn.reward}),
        "instruction_ids": list(turn.instruction_ids),
        "token_ids": list(turn.completion.token_ids),
        "logprobs": _numbers(turn.completion.logprobs),
        "finish": turn.completion.finish,
    }


def _turn(row: _TurnRow) -> Turn:
    if "token_ids" not in row and "tokens" not in row:
        raise ValueError("'tokens' is missing in a turn")
    token_ids = tuple(row["token_ids"]) if "token_ids" in row else _unknown(row["tokens"])
    phase, logprobs, right = row.get("phase") or UNNAMED, row.get("logprobs"), row.get("right")
    return Turn(
        spec=TurnSpec(phase, row.get("max_new_tokens", len(token_ids)), row.get("fields") or {}),
        text=row.get("text") or "",
        parsed=_parsed(row),
        instruction_ids=tuple(row.get("instruction_ids") or ()),
        completion=Completion(
            token_ids=token_ids,
            logprobs=(math.nan,) * len(token_ids) if logprobs is None else _floats(logprobs),
            finish=row.get("finish", Finish.STOP),
        ),
        violation=row.get("violation"),
        reward=row["reward"] if "reward" in row else None if right is None else float(right),
    )


def _parsed(row: _TurnRow) -> Parsed | None:
    if "parsed" in row:
        if (parsed := row["parsed"]) is None:
            return None
        steps = tuple(parsed.get("steps") or ())
        return Parsed(parsed.get("answer"), steps, parsed.get("step"), parsed.get("verdict"))
    if "answer" not in row and "text" not in row:
        raise ValueError("'text' is missing in a turn")
    answer = row.get("answer", extract_boxed(row.get("text") or ""))
    return None if row.get("violation") else Parsed(answer=None if answer is None else str(answer))


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


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(map(_or_nan, values)) if None in values else tuple(values)  # type: ignore[arg-type]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
