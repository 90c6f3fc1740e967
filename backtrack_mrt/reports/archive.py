"""Trajectories inside the page: a small index that is read at once, and packs of traces that are decoded when one of
them is looked at. All of it is gzip in base64, which no text of a model can break out of.

index   {names, sources, kinds, stops, problems [[id, question]], rows [[source, problem, …]]}: see `COLUMNS`
traces  a list of HTML fragments (escaped by the template)
tokens  per trace {ids, sampled, logprobs, weights}: see `_tokens`
words   the texts of the token ids that occur
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import to_json

from backtrack_mrt.reports.trace_view import TraceView, view
from backtrack_mrt.runs.trace import visible
from backtrack_mrt.types import Scored

PACK = 50  # traces that are decoded together
COLUMNS = (
    *("source", "problem", "name", "kind", "stop", "path"),
    *("progress", "largest", "tokens", "turns", "regret", "violation"),
)


@dataclass(frozen=True)
class TraceSource:
    """Trajectories of one policy at one time. `name` is what links call it; `words` gives the text of a token id, None
    where the tokenizer is not known; `phases` says what the protocol's are for. Policies are put side by side seed by
    seed. `total` is how many there are in the file, if not all are here."""

    name: str
    label: str
    scored: Sequence[Scored]
    words: Callable[[int], str] | None = None
    seed: int | None = None
    total: int = 0
    phases: Mapping[str, str] = field(default_factory=dict)

    def view(self, line: int) -> TraceView:
        """How the trajectory of a line (from 1) reads; a trace is called by its source and its line in the file."""
        return view(f"{self.name}:{line}", self.label, self.scored[line - 1], self.phases)

    def views(self) -> Iterator[TraceView]:
        """All of them, one at a time: thousands of views would take more memory than the trajectories."""
        return map(self.view, range(1, len(self.scored) + 1))


class Outline(NamedTuple):
    """As much of a trace as it takes to choose one."""

    line: int
    kind: str
    progress: float
    tokens: int


@dataclass
class Archive:
    """What the page's script is given, and an outline of every trace by source."""

    outlines: list[list[Outline]]
    index: str = ""
    traces: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    words: str = ""
    count: int = 0


def shared_out(sources: Sequence[TraceSource], most: int) -> list[TraceSource]:
    """At most about `most` trajectories: the first lines of every source, as many of each. Evaluations have their
    problems in one order, so what is kept of them is of the same problems."""
    lengths = sorted(len(source.scored) for source in sources)
    share, left = 0, most
    for place, length in enumerate(lengths):
        share = left // (len(lengths) - place)
        if length > share:
            break
        left, share = left - length, length
    return [replace(source, scored=source.scored[:share], total=len(source.scored)) for source in sources]


def archive(sources: Sequence[TraceSource], render: Callable[[TraceView], str]) -> Archive:
    """Everything packed; `render` gives a trace's HTML."""
    problems: dict[str, int] = {}
    questions: list[list[str]] = []
    rows: list[list[Any]] = []
    words: dict[int, str] = {}
    packed = Archive(outlines=[[] for _ in sources])
    every = ((place, trace) for place, source in enumerate(sources) for trace in source.views())
    while pack := list(islice(every, PACK)):
        packed.traces.append(compressed([render(trace) for _, trace in pack]))
        packed.tokens.append(compressed([_tokens(trace) for _, trace in pack]))
        for place, trace in pack:
            trajectory, outlines = trace.trajectory, packed.outlines[place]
            outlines.append(Outline(len(outlines) + 1, trace.kind, trace.progress or 0.0, trajectory.sampled_tokens))
            number = problems.setdefault(trajectory.problem.id, len(problems))
            if number == len(questions):
                questions.append([visible(trajectory.problem.id), visible(trajectory.problem.question)[:300]])
            rows.append(_row(trace, place, number))
            if told := sources[place].words:
                for token in {*trajectory.token_ids} - words.keys():
                    words[token] = visible(told(token)) if token >= 0 else ""
    names = [[source.name, visible(source.label), source.seed] for source in sources]
    packed.index = compressed({"columns": COLUMNS, "pack": PACK, "sources": names, "problems": questions, "rows": rows})
    packed.words, packed.count = compressed(words), len(rows)
    return packed


def compressed(data: Any) -> str:
    """JSON, compressed, in the letters of base64. The same data give the same text."""
    return base64.b64encode(gzip.compress(to_json(data, inf_nan_mode="null"), compresslevel=5, mtime=0)).decode()


def _row(trace: TraceView, source: int, problem: int) -> list[Any]:
    steps = [turn.progress for turn in trace.turns if turn.progress is not None]
    grades = "".join("✓" if turn.right else "✗" for turn in trace.turns if turn.right is not None)
    largest = max(steps, key=abs, default=None)
    trajectory = trace.trajectory
    violation = None if trace.violation is None else visible(trace.violation)
    numbers = [
        _short(trace.progress),
        _short(largest),
        trajectory.sampled_tokens,
        len(trace.turns),
        _short(trace.regret),
    ]
    return [source, problem, trace.name, trace.kind, trajectory.stop, grades, *numbers, violation]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _tokens(trace: TraceView) -> dict[str, Any]:
    """ids: all tokens, none if not known. prompt: how many are the prompt's. turns: [phase, instruction tokens,
    sampled tokens, whether it was given]. logprobs: −100 × the logarithm, rounded, of the sampled ones; null where it
    is not known. weights: the algorithm's, per turn."""
    trajectory = trace.trajectory
    if max(trajectory.token_ids, default=-1) < 0:  # another program's: there may be millions of which nothing is known
        return {"ids": []}
    return {
        "ids": trajectory.token_ids,
        "prompt": len(trajectory.prompt_ids),
        "turns": [
            [visible(turn.phase), len(sampled.instruction_ids), turn.tokens, turn.given]
            for turn, sampled in zip(trace.turns, trajectory.turns, strict=True)
        ],
        "logprobs": _hundredths([value for turn in trajectory.turns for value in turn.completion.logprobs]),
        "weights": [turn.weight for turn in trace.turns],
    }


def _hundredths(logprobs: list[float]) -> list[int | None]:
    numbers = np.array(logprobs)
    known = np.isfinite(numbers)
    rounded: list[int | None] = np.rint(-100 * np.where(known, numbers, 0)).astype(int).tolist()
    return rounded if known.all() else [value if there else None for value, there in zip(rounded, known, strict=True)]
