"""Trajectories as JSONL: one scored trajectory per line, complete enough to train on again.

    problem    {id, question, answer, source}
    prompt_ids [ids of the prompt]
    turns      [{phase, max_new_tokens, fields, text, parsed, violation, right, instruction_ids, token_ids,
                 logprobs, finish}]
    stop       finished | turn_limit | budget | violation | null (still going on)
    answer     the final answer that stands, or null
    outcome    1.0, 0.0 or null (not graded)
    verdict    right | wrong | unparsable | timeout | null
    given      leading turns that were not sampled in this rollout (0 unless it was branched)
    values     [V_0 … V_E] or null

`parsed` is null or {answer, steps, step, verdict}: see `backtrack_mrt.types.Parsed`. NaN is written as null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Completion, Finish, Parsed, Problem, Scored, StopReason, Trajectory, Turn, TurnSpec


def write_trajectories(path: Path, scored: Iterable[Scored]) -> None:
    """Write one line per trajectory; an older file of that name is replaced."""
    with path.open("w", encoding="utf-8") as file:
        for member in scored:
            file.write(json.dumps(as_record(member), ensure_ascii=False, allow_nan=False) + "\n")


def read_trajectories(path: Path) -> list[Scored]:
    """The trajectories of a file. Raises UserError naming the line that is not one."""
    scored = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                scored.append(from_record(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                reason = f"line {number} is not a trajectory: {error!r}"
                raise UserError("trajectories", str(path), reason, "Give a file that a run has written.") from error
    return scored


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
    }


def from_record(record: dict[str, Any]) -> Scored:
    """The inverse of `as_record`."""
    trajectory = Trajectory(
        problem=Problem(**record["problem"]),
        prompt_ids=tuple(record["prompt_ids"]),
        turns=tuple(_turn(turn) for turn in record["turns"]),
        stop=None if record["stop"] is None else StopReason(record["stop"]),
        answer=record["answer"],
        outcome=_or_nan(record["outcome"]),
        verdict=record["verdict"],
        given=record["given"],
    )
    values = record["values"]
    return Scored(trajectory, None if values is None else np.array([_or_nan(v) for v in values], dtype=np.float64))


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


def _turn(record: dict[str, Any]) -> Turn:
    parsed = record["parsed"]
    return Turn(
        spec=TurnSpec(record["phase"], record["max_new_tokens"], record["fields"]),
        text=record["text"],
        parsed=None if parsed is None else Parsed(**parsed | {"steps": tuple(parsed["steps"])}),
        instruction_ids=tuple(record["instruction_ids"]),
        completion=Completion(
            token_ids=tuple(record["token_ids"]),
            logprobs=tuple(_or_nan(value) for value in record["logprobs"]),
            finish=Finish(record["finish"]),
        ),
        violation=record["violation"],
        right=record["right"],
    )


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
