"""The thinking audit from trajectories to report, for `audit-thinking`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from backtrack_mrt.config import Config
from backtrack_mrt.data.loading import load_held_out
from backtrack_mrt.data.signs import first_wrong_step
from backtrack_mrt.evaluation.evaluate import (
    envelope_regrets,
    evaluate,
    forced_majority,
    forced_tokens,
    majority_points,
    sampled_rows,
)
from backtrack_mrt.evaluation.metrics.summary import Cuts, Extras, Summary, summarise
from backtrack_mrt.evaluation.tables import as_table
from backtrack_mrt.evaluation.thinking import Thresholds, thinking_by_set
from backtrack_mrt.evaluation.traces import read_traces
from backtrack_mrt.reports.thinking import report_thinking, thinking_table, votes_table
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.row_lengths import fitting
from backtrack_mrt.runs.jsonl import json_text
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.runs.records import write_trajectories
from backtrack_mrt.types import FloatArray, Scored


def audit_thinking(
    config: Config,
    parts: Assembly | None,
    traces: Path | None,
    thresholds: Thresholds,
    votes: int,
    out: Path,
    title: str,
) -> None:
    """Trajectories of a file, or of the model of `parts` on the held-out problems; tables, and in `out` report.html,
    numbers.json and traces.jsonl. Raises UserError."""
    prolonged = config.protocol.prolonged(config.evaluation.extra_revisions)
    with nullcontext() if parts is None else closing(parts.engine):
        if traces is not None:
            scored = read_traces(traces, parts, config.grading)
            limits = Cuts.found(scored)
        else:
            assert parts is not None
            scored, limits = _sampled(config, parts), Cuts.of(config.protocol, prolonged)

        forced = forced_tokens(parts.dialogue, scored) if parts is not None else (lambda trajectory: 0)
        cast: list[FloatArray] = []
        if votes and parts is not None:
            collector = parts.collector(prolonged, with_values=False)
            collector = replace(collector, max_answer_tokens=config.prover.max_answer_tokens)
            cast, _ = forced_majority(
                scored, votes, limits.turns, collector, config.evaluation.temperature, config.seed
            )

    def summarised(places: Sequence[int]) -> Summary:
        some = [scored[i] for i in places]
        extras = Extras()
        if some_cast := [cast[i] for i in places] if cast else []:
            by_turn = majority_points(some, some_cast, limits.turns)
            envelope = envelope_regrets(some, some_cast, limits.turns)
            extras = Extras(majority_at_turn=by_turn, regret_envelope=envelope)
        return summarise(some, limits, first_wrong_step, prolonged, config.evaluation.budgets, forced, extras)

    found = thinking_by_set(scored, thresholds, summarised)
    out.mkdir(parents=True, exist_ok=True)
    write_trajectories(out / "traces.jsonl", scored)
    told = {"thresholds": asdict(thresholds), "votes": votes, "sets": {name: asdict(t) for name, t in found.items()}}
    (out / "numbers.json").write_text(json_text(told), encoding="utf-8")
    report_thinking(found, scored, thresholds, votes, title, out / "report.html")
    Console().print(as_table(thinking_table(found, thresholds), f"thinking audit of {title}"))
    if votes:
        Console().print(as_table(votes_table(found, votes), "votes after j turns, or going on"))
    print(f"report: {out / 'report.html'}")


def _sampled(config: Config, parts: Assembly) -> list[Scored]:
    """Trajectories of the held-out problems, sampled and valued as `evaluate` does."""
    prolonged, wanted = config.protocol.prolonged(config.evaluation.extra_revisions), config.evaluation
    collector = parts.collector(prolonged, with_values=True)
    prover = collector.prover or parts.prover()
    problems, notes = load_held_out(config.data, config.grading)
    length = parts.engine.context_length
    problems, passed = fitting(
        problems, config.protocol, parts.dialogue, length, field="data.eval", reserve=prover.reserve
    )
    print("".join(f"{note}\n" for note in notes + passed), end="")
    rows = sampled_rows(problems, wanted)
    with progress(len(rows), "rollouts") as bar:
        valued = replace(collector, prover=prover)
        return evaluate(rows, valued, wanted.temperature, config.seed, bar.update).scored
