"""The conformance suite: what keeps a credit per turn, and that the questions can be failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.documents import files_in, text_of
from trl import GRPOTrainer

from backtrack_mrt.cli.main import main
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.conformance import QUESTIONS, CreditedEpisode, Stack, conformance
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


def per_episode(group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    returns = np.array([e.total for e in group])
    return [a * np.array(e.mask) for a, e in zip(returns - returns.mean(), group, strict=True)]


def outcomes_alone(group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    outcomes = np.array([e.outcome for e in group])
    return [a * np.array(e.mask) for a, e in zip(outcomes - outcomes.mean(), group, strict=True)]


def per_turn(group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    return Ours("mrt-rl").advantages(group)


def shifted(by: int) -> Callable[[Sequence[CreditedEpisode]], list[FloatArray]]:
    return lambda group: [np.roll(row, by) * e.mask for row, e in zip(per_turn(group), group, strict=True)]


def at_the_end(group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    return [row * (np.diff([*e.turns, -1]) != 0) for row, e in zip(per_turn(group), group, strict=True)]


def centred_within(group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    rows = zip(per_turn(group), group, strict=True)
    return [(row - row[np.array(e.mask) == 1].mean()) * e.mask for row, e in rows]


def whitened(group: Sequence[CreditedEpisode]) -> list[FloatArray]:
    """Over the batch's sampled tokens, as verl does."""
    rows = per_turn(group)
    sampled = np.concatenate([row[np.array(e.mask) == 1] for row, e in zip(rows, group, strict=True)])
    return [
        (row - sampled.mean()) / (sampled.std() + 1e-8) * np.array(e.mask) for row, e in zip(rows, group, strict=True)
    ]


class Loop(Stack):
    """Somebody's own."""

    def __init__(self, function: Callable[[Sequence[CreditedEpisode]], Any]) -> None:
        self._function = function

    def advantages(self, group: Sequence[CreditedEpisode]) -> list[FloatArray]:
        return self._function(group)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "passed", "told"),
    [
        (per_turn, True, "that turn alone"),
        (whitened, True, "that turn alone"),
        (per_episode, False, "spread over all turns"),
        (outcomes_alone, False, "lost"),
        (shifted(1), False, "on 1 of that turn's 2 tokens: shifted, or at one end of it"),
        (shifted(-1), False, "on 1 of that turn's 2 tokens: shifted, or at one end of it"),
        (shifted(3), False, "on 0 of that turn's 2 tokens: shifted, or at one end of it"),
        (at_the_end, False, "on 1 of that turn's 2 tokens: shifted, or at one end of it"),
        (centred_within, False, "turns after it have -0.33 where it has +0.67"),
    ],
)
def test_loops_of_ones_own(function: Any, passed: bool, told: str) -> None:
    found = conformance(Loop(function))
    assert found.name == "Loop"
    assert found.answers[QUESTIONS[0]] == (passed, told)


@pytest.mark.parametrize("given", [None, [], [[0.0]], [np.full(8, np.nan)] * 2, [torch.ones(8).requires_grad_()] * 2])
def test_a_loop_gives_a_number_for_every_token(given: Any) -> None:
    with pytest.raises(UserError, match=r"STACK = 'Loop': its advantages gave .* for 2 episodes of \[8, 8\] tokens"):
        conformance(Loop(lambda group: given))


def test_the_documents_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_loop.py"
    file.write_text(files_in("docs/conformance.md")["my_loop.py"])
    assert main(["conform", str(file)]) == 0
    assert "yes: that turn alone" in " ".join(capsys.readouterr().out.split())
    file.write_text(file.read_text().replace("np.array(episode.progress)", "sum(episode.progress) + np.zeros(9)"))
    assert main(["conform", str(file)]) == 1
    assert "NO: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "def advantages(self, group): return [e.turn for e in group]",
            r"advantages raised AttributeError.*line 3\.",
        ),
        ("def advantages(self, group, values): return []", "Mine.advantages cannot be called: missing a required"),
        ("def credit(self, group): return []", "Mine does not define advantages"),
        (
            "def __init__(self, trainer): pass\n    def advantages(self, group): return []",
            "Mine cannot be called: missing a required argument: 'trainer'. Give all its arguments a default",
        ),
    ],
)
def test_a_loop_that_cannot_be_asked(tmp_path: Path, body: str, told: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"import backtrack_mrt as bt\nclass Mine(bt.Stack):\n    {body}\n")
    with pytest.raises(UserError, match=told):
        main(["conform", str(file)])


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
