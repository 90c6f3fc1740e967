"""Playing on from histories that are given, in both forms of backtracking search."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from backtrack_mrt.data.demonstrations.files import Demonstration, Span
from backtrack_mrt.data.demonstrations.inline import in_one_message
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.inline import Inline
from backtrack_mrt.evaluation.given_history import histories, progress_from, right_from
from backtrack_mrt.graders.math import Math
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.types import FloatArray, Problem, Trajectory

CHAT = ByteChat()
WRONG, RIGHT = (f"## Step 2: 2 + 1 = {n}\n\\boxed{{{n}}}" for n in (4, 3))
FIRST = "## Step 1: 1 + 1 = 2\n"
GIVEN = [
    (FIRST + WRONG, "Error in step 2", "Backtrack to step 1", RIGHT, "No error"),
    (FIRST + RIGHT, "No error"),  # nothing to go back from
]


@pytest.mark.parametrize(("protocol", "name"), [(Backtrack(), "backtrack"), (Inline(), "inline")])
def test_a_policy_plays_on_from_an_attempt_and_from_a_backtrack(protocol: EpisodeProtocol, name: str) -> None:
    """One that stops at once, and knows the right step when it is sent back to it."""
    dialogue = Dialogue(CHAT, load_prompts(name, "terse"))

    def reply(prefix: tuple[int, ...]) -> tuple[int, ...]:
        text = CHAT.decode(prefix).rstrip()
        went_back = text.endswith(("Revise.", "Backtrack to line 1"))
        return (*CHAT.encode(RIGHT if went_back else "No error"), CHAT.eos_id)

    problem = Problem("p", "1 + 1 + 1", "3")
    written = [Demonstration(problem, tuple((Span(text),) for text in texts)) for texts in GIVEN]
    if name == "inline":
        written = [in_one_message(demonstration) for demonstration in written]
    found = histories(written, protocol, dialogue)
    assert [len(starts) for starts in found.values()] == [1, 1]
    assert [starts[0].given for starts in found.values()] == ([1, 3] if name == "backtrack" else [1, 2])
    collector = Collector(protocol, dialogue, ScriptedEngine(reply), Math(), None, max_rows=2)
    shares = {given: right_from(starts, collector, 1.0, seed=0).mean for given, starts in found.items()}
    assert shares == {"given attempt": 0.0, "given backtrack": 1.0}


def surer_turn_by_turn(trajectories: Sequence[Trajectory]) -> list[FloatArray]:
    """V_j = j / 10."""
    return [np.arange(len(trajectory.turns) + 1) / 10 for trajectory in trajectories]


def test_progress_of_the_first_move_from_an_attempt_that_is_given_to_all() -> None:
    """Back and a revision: two turns after the check. A policy that stops makes none."""
    dialogue = Dialogue(CHAT, load_prompts("backtrack", "terse"))
    moves = ("Error in step 2", "Backtrack to step 1", RIGHT, "No error")
    given = [Demonstration(Problem("p", "1 + 1 + 1", "3"), tuple((Span(text),) for text in GIVEN[0]))]
    starts = histories(given, Backtrack(), dialogue)["given attempt"]

    def mends(prefix: tuple[int, ...]) -> tuple[int, ...]:
        found = CHAT.decode(prefix).rsplit(WRONG, 1)[1]  # what was said after the given attempt
        said = sum(f"{move.partition(chr(10))[0]}" in found for move in moves)
        return (*CHAT.encode(moves[said]), CHAT.eos_id)

    def stops(prefix: tuple[int, ...]) -> tuple[int, ...]:
        return (*CHAT.encode("No error"), CHAT.eos_id)

    prover = cast(Any, SimpleNamespace(values=surer_turn_by_turn))
    for reply, progress in ((mends, 0.2), (stops, 0.0)):
        collector = Collector(Backtrack(), dialogue, ScriptedEngine(reply), Math(), None, max_rows=2)
        assert progress_from(starts, collector, prover, 1.0, seed=0).mean == pytest.approx(progress)
