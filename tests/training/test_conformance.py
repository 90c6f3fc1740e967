"""The conformance suite: what keeps a credit per turn, and that the questions can be failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.documents import text_of
from trl import GRPOTrainer

from backtrack_mrt.cli.main import main
from backtrack_mrt.evaluation.conformance import QUESTIONS, CreditedEpisode, conformance
from backtrack_mrt.training.mrt_trainer import MRTTrainer
from backtrack_mrt.training.stacks import InTrl, Ours, TurnMeans, stacks
from backtrack_mrt.types import FloatArray


@pytest.mark.parametrize("settings", [{}, {"credit": "return_to_go"}])
def test_ours_keeps_it(settings: dict[str, str]) -> None:
    found = conformance(Ours("mrt-rl", **settings))
    assert found.keeps, found
    alone = found.answers[QUESTIONS[0]][1] == "that turn alone"
    assert alone is (not settings)


def test_trl_keeps_it_as_mrt_trainer() -> None:
    assert conformance(InTrl(MRTTrainer)).keeps
    theirs = conformance(InTrl(GRPOTrainer))
    assert [passed for passed, _ in theirs.answers.values()] == [False, True, True, True]
    assert theirs.answers[QUESTIONS[0]][1] == "spread over all turns"


def test_the_control_is_caught() -> None:
    """A mean per turn number is no baseline where the policy chooses when to stop."""
    found = conformance(TurnMeans())
    assert [passed for passed, _ in found.answers.values()] == [True, True, True, False]


class Leaking(Ours):
    """Credit on the environment's tokens."""

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        return [row + 0.1 for row in super().advantages(group)]


class Reversed(Ours):
    """Wrong way round."""

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        return [-row for row in super().advantages(group)]


def test_faults_are_seen() -> None:
    assert not conformance(Leaking("mrt-rl")).answers["environment tokens"][0]
    assert conformance(Reversed("mrt-rl")).answers["summed progress"] == (False, "another direction")
    assert not conformance(Reversed("mrt-rl")).answers["when to stop"][0]


def test_an_episode_in_tokens() -> None:
    episode = CreditedEpisode((0.25, 0.5), 1.0)
    assert episode.mask == [1, 1, 0, 1, 1]
    assert episode.turns == [0, 0, -1, 1, 1]
    np.testing.assert_allclose(episode.values, [0, 0.25, 0.75])


def test_the_command_and_its_published_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["conform", "--out", str(tmp_path / "table.md")])
    rows = (tmp_path / "table.md").read_text().splitlines()
    published = text_of("docs/conformance.md").splitlines()
    installed, _ = stacks()
    assert len(rows) == 2 + len(installed)
    assert [row for row in rows if row not in published] == []
    assert "not asked" in capsys.readouterr().out
