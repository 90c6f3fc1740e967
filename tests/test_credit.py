"""Credit for other people's trainers: plain arrays and message lists, the algorithms' own functions behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import backtrack_mrt as bt
from backtrack_mrt import credit
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.envs.open_ended import OpenEnded
from backtrack_mrt.errors import UserError

MASK = [1, 1, 0, 0, 1, 0, 1, 1]
TURNS = [0, 0, -1, -1, 1, -1, 2, 2]
VALUES = [0.2, 0.5, 0.4, 0.9]


def test_runs_of_ones_are_turns() -> None:
    assert credit.turn_index(MASK).tolist() == TURNS
    assert credit.turn_index([0, 0]).tolist() == [-1, -1]
    assert credit.turn_index([]).tolist() == []


def test_the_equation_by_hand() -> None:
    """Â = R − mean is ±.5; progress is .3, −.1, .5 in the first and .2 in the second."""
    first, second = bt.credit.token_advantages([TURNS, [0, 0, -1]], [1, 0], [VALUES, [0.2, 0.4]], alpha=1.0)
    np.testing.assert_allclose(first, [0.8, 0.8, 0, 0, 0.4, 0, 1.0, 1.0])
    np.testing.assert_allclose(second, [-0.3, -0.3, 0])


@pytest.mark.parametrize("settings", [{}, {"credit": "return_to_go"}, {"credit": "gae", "baseline": "value"}])
def test_they_are_the_algorithms_own(settings: dict[str, str]) -> None:
    rows, values, outcomes = [TURNS, [0, -1, 1]], [VALUES, [0.2, 0.1, 0.4]], [1.0, 0.0]
    found = credit.token_advantages(rows, outcomes, values, **settings)
    scored = [
        credit._scored(i, bt.Problem("", "", ""), np.array(r), outcomes[i], values, None) for i, r in enumerate(rows)
    ]
    weights = MrtRl(**settings).turn_weights(bt.Group(bt.Problem("", "", ""), tuple(scored)))  # type: ignore[arg-type]
    for row, turns, own in zip(found, rows, weights, strict=True):
        np.testing.assert_allclose(row, [own[j] if j >= 0 else 0.0 for j in turns])


@given(st.lists(st.lists(st.booleans(), max_size=12), min_size=2, max_size=5), st.integers(0, 99))
def test_without_progress_it_is_grpo(masks: list[list[bool]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    turns = [credit.turn_index(mask) for mask in masks]
    values = [rng.random(int(row.max(initial=-1)) + 2) for row in turns]
    outcomes = rng.integers(0, 2, len(turns))
    ours = credit.token_advantages(turns, outcomes, values, alpha=0.0)
    theirs = credit.token_advantages(turns, outcomes, algo="grpo")
    for row, other, index in zip(ours, theirs, turns, strict=True):
        np.testing.assert_allclose(row, other)
        assert not row[index < 0].any()


def test_groups_are_told_by_their_problems() -> None:
    rows = [[0], [0], [0], [0]]
    found = credit.token_advantages(rows, [1, 1, 0, 0], problems=["a", "b", "a", "b"], algo="grpo")
    assert [row.tolist() for row in found] == [[0.5], [0.5], [-0.5], [-0.5]]
    apart = credit.token_advantages(rows, [1, 0, 0, 0], problems=[1, 1, "1", "1"], algo="grpo")
    assert [row.tolist() for row in apart] == [[0.5], [-0.5], [0], [0]]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"values": None}, "values = None: the algorithm needs them"),
        ({"values": [VALUES, [0.1]]}, r"values\[1\].*1 turns need 2"),
        ({"turns": [TURNS, [1, 0]]}, r"turns\[1\].*in order"),
        ({"values": [VALUES, [0.1, float("nan")]]}, r"values\[1\].*not finite numbers"),
        ({"outcomes": [1, float("inf")]}, "outcomes = inf: not a finite number"),
        ({"outcomes": [1]}, "outcomes = 1: there are 2 trajectories"),
        ({"alhpa": 1}, r"mrt-rl.alhpa.*Did you mean 'alpha'"),
        ({"algo": "mrt"}, "Did you mean 'mrt-"),
        ({"credit": "gae"}, 'baselines = None.*baseline="value"'),
        ({"problems": ["a", "b"]}, "compares the members of a group"),
    ],
)
def test_what_does_not_fit_is_told(given: dict[str, object], reason: str) -> None:
    asked = {"turns": [TURNS, [0]], "outcomes": [1, 0], "values": [VALUES, [0.2, 0.4]]} | given
    with pytest.raises(UserError, match=reason):
        credit.token_advantages(**asked)  # type: ignore[arg-type]


def test_message_lists(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "Three: \\boxed{3}"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No. \\boxed{2}"},
    ]
    trajectory = credit.conversation(messages, tokenizer, bt.Problem("p", "1 + 1?", "2"), outcome=1.0)
    assert [turn.text for turn in trajectory.turns] == ["Three: \\boxed{3}", "No. \\boxed{2}"]
    assert trajectory.answer == "2"
    rendered = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert list(trajectory.token_ids) == rendered[: len(trajectory.token_ids)]
    (row,) = credit.token_advantages(
        [trajectory.turn_index()], [1.0], [[0.1, 0.0, 1.0]], credit="gae", baseline="value"
    )
    assert len(row) == len(trajectory.token_ids) - len(trajectory.prompt_ids)


def test_a_thought_falls_into_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    thought = "<think>It is three, I suppose, as always. Wait, that is wrong.</think>\\boxed{2}"
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": thought}]
    protocol = OpenEnded()
    found = credit.conversation(messages, tokenizer, bt.Problem("p", "1 + 1?", "2"), cuts=protocol.cuts)
    assert [turn.text[:4] for turn in found.turns] == ["<thi", "Wait"]
    assert [turn.completion.finish for turn in found.turns] == ["cut", "stop"]
