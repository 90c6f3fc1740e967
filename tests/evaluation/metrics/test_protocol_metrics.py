"""A protocol's own numbers: under its names, averaged or pooled, and nobody else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np
import pytest
from support.hand_worked import ATTEMPT, CORRECTED, ERROR_2, TO_1

from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.single import Single
from backtrack_mrt.errors import RunError
from backtrack_mrt.evaluation.metrics.estimates import ProblemIndex
from backtrack_mrt.evaluation.metrics.protocol_metrics import PROGRESS_EDGES, progress_of_moves, protocol_metrics
from backtrack_mrt.evaluation.metrics.summary import Cuts, summarise
from backtrack_mrt.evaluation.tables import numbers
from backtrack_mrt.protocol import EpisodeProtocol, Share
from backtrack_mrt.types import Problem, Scored, Trajectory

VALUES = np.array([0.1, 0.2, 0.2, 0.4, 0.8, 0.9])
SCORED = Scored(CORRECTED, VALUES)


class Counted(Single):
    """Reports what the test wants, by problem."""

    reported: ClassVar[Mapping[str, Mapping[str, float | Share]]] = {
        "a": {"drafts_differ": 1.0, "chosen": Share(1, 1)},
        "b": {"drafts_differ": True, "chosen": Share(0, 3), "rare": 5},
        "c": {},
    }

    def metrics(self, trajectory: Trajectory) -> Mapping[str, float | Share]:
        return self.reported[trajectory.problem.id]

    def moves(self, trajectory: Trajectory) -> Mapping[str, Sequence[range]]:
        return {"choice": [range(2)] if trajectory.problem.id == "a" else []}


def of(names: str) -> list[Scored]:
    return [Scored(replace(CORRECTED, problem=Problem(name, "q", "2")), VALUES) for name in names]


def test_numbers_are_averaged_where_they_are_and_shares_pooled() -> None:
    scored = of("abc")
    found = protocol_metrics(Counted(), [s.trajectory for s in scored], ProblemIndex(scored))
    assert {name: (e.mean, e.n) for name, e in found.items()} == {
        "drafts_differ": (1.0, 2),
        "chosen": (0.25, 4),
        "rare": (5.0, 1),
    }


def test_a_protocol_is_shown_its_own_numbers_and_no_backtracks() -> None:
    scored = of("abc")
    summary = summarise(scored, Cuts.found(scored), protocol=Counted())
    told = " ".join(name for name, estimate in numbers(summary, 2) if estimate.n)
    assert "drafts differ" in told
    assert "backtrack" not in told
    assert "revision" not in told
    assert summary.moves["choice"].progress.mean == pytest.approx(0.1)
    assert "backtrack" not in str(asdict(replace(summary, phases={})))  # these turns were phases of that protocol


def test_one_answer_has_no_rows_of_later_ones() -> None:
    only = [Scored(replace(CORRECTED, turns=(replace(ATTEMPT, reward=1.0),)))]
    told = [name for name, _ in numbers(summarise(only, Cuts.found(only)), 1)]
    assert told[:2] == ["final accuracy (as trained)", "tokens per trajectory"]


@pytest.mark.parametrize("reported", [{"x": "many"}, {"x": None}, None])
def test_a_protocol_that_fails_at_it_is_named(reported: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "reported", {"a": reported})
    with pytest.raises(RunError, match=r"Counted\.metrics fails on a trajectory of problem a"):
        protocol_metrics(Counted(), [of("a")[0].trajectory], ProblemIndex(of("a")))


def progress(scored: Scored, protocol: EpisodeProtocol) -> float:
    return progress_of_moves(protocol, [scored], ProblemIndex([scored]))["backtrack"].progress.mean


def test_a_backtrack_and_its_revision_are_taken_together() -> None:
    assert progress(SCORED, Backtrack()) == pytest.approx(0.8 - 0.2)
    cut = replace(CORRECTED, turns=(ATTEMPT, ERROR_2, TO_1))
    assert progress(Scored(cut, VALUES[:4]), Backtrack()) == pytest.approx(0.2)
    assert np.isnan(progress(Scored(CORRECTED), Backtrack()))


def test_the_histogram_has_fixed_bins_and_one_for_no_progress() -> None:
    still = Scored(CORRECTED, np.full(6, 0.3))
    histogram = progress_of_moves(Backtrack(), [still], ProblemIndex([still]))["backtrack"].histogram
    assert len(PROGRESS_EDGES) == 22
    assert [share.mean for share in histogram] == [0.0] * 10 + [1.0] + [0.0] * 10
