"""The table that groups a trace's turns by phase."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from support.report_subjects import fixed

from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.reports.trace_html import trace_html
from backtrack_mrt.reports.trace_view import view
from backtrack_mrt.types import Scored


def test_turns_are_grouped_by_phase() -> None:
    """Numbers, tokens and progress of each phase's turns; not where no phase comes twice."""
    first = fixed()
    turns = (*first.trajectory.turns, *first.trajectory.turns[1:])  # attempt, and twice detect, backtrack, revise
    again = Scored(replace(first.trajectory, turns=turns), np.array([0.1, 0.6, 0.5, 0.2, 0.4, 0.3, 0.5, 1.0]))
    html = trace_html(view("run:1", "trained", again, Backtrack.phases))
    rows = re.findall(r"<tr><th scope=\"row\"><bdi>(\w+)</bdi></th><td>(.*?)</td><td>(\d+)</td><td>(.*?)</td>", html)
    tokens = [len(turn.completion.token_ids) for turn in first.trajectory.turns]
    assert [row[:2] for row in rows] == [
        ("attempt", "1"),
        ("detect", "2, 5"),
        ("backtrack", "3, 6"),
        ("revise", "4, 7"),
    ]
    assert [int(row[2]) for row in rows] == [tokens[0], *(2 * n for n in tokens[1:])]
    assert [row[3] for row in rows] == ["+0.50", "−0.20", "−0.10", "+0.70"]
    assert "table" not in trace_html(view("run:1", "trained", first, Backtrack.phases))
