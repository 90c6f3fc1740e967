"""Judging given attempts with a scripted policy."""

from __future__ import annotations

from backtrack_mrt.data.demonstrations.attempts import Attempt
from backtrack_mrt.data.demonstrations.files import Demonstration, Span
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.evaluation.error_detection import demonstrated, detection, labelled
from backtrack_mrt.graders.math import Math
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.types import Problem

DIALOGUE = Dialogue(ByteChat(), load_prompts("backtrack", "instruct"))
TWO_STEPS = "## Step 1: 1 + 1 = 2\n## Step 2: 2 + 1 = {0}\n\\boxed{{{0}}}"


def demonstration(name: str, answer: int, *checks: str) -> Demonstration:
    texts = (TWO_STEPS.format(answer), *checks)
    return Demonstration(Problem(name, "1 + 1 + 1", "3"), tuple((Span(text),) for text in texts))


def policy(*replies: str) -> Collector:
    chat = DIALOGUE.chat
    engine = ScriptedEngine([(*chat.encode(text), chat.eos_id) for text in replies])
    return Collector(Backtrack(), DIALOGUE, engine, Math(), None, max_rows=2)


def shares(collector: Collector, cases: list) -> dict[str, tuple[float, int]]:  # type: ignore[type-arg]
    found = detection(cases, collector, 1.0, seed=0)
    return {name: (estimate.mean, estimate.n) for name, estimate in found.items()}


def test_verdict_step_and_target_are_judged() -> None:
    given = [
        demonstration("right", 3, "No error"),
        demonstration("missed", 4, "Error in step 2"),
        demonstration("found", 4, "Error in step 2"),
        demonstration("misplaced", 4, "Error in step 2"),
        demonstration("uncheckable", 4),
    ]
    cases = demonstrated(given, Backtrack(), DIALOGUE)
    assert [(case.right, case.wrong_step) for case in cases] == [(True, None), (False, 2), (False, 2), (False, 2)]
    replies = [
        "No error",
        "No error",
        "Error in step 2",
        "Error in step 1",
        "Backtrack to step 1",
        "Backtrack to step 0",
    ]
    assert shares(policy(*replies), cases) == {
        "checks without a violation": (1.0, 4),
        "right attempts found right": (1.0, 1),
        "wrong attempts found wrong": (2 / 3, 3),
        "right step named": (1 / 3, 3),
        "returned to the right step": (1 / 3, 3),
    }


def test_labelled_attempts_have_a_verdict_only() -> None:
    problem = Problem("p", "1 + 1 + 1", "3")
    attempts = [Attempt(problem, TWO_STEPS.format(k), k == 3) for k in (3, 4)] + [Attempt(problem, "?", False)]
    assert shares(
        policy("Error in step 2", "no verdict", "Backtrack to step 1"), labelled(attempts, Backtrack(), DIALOGUE)
    ) == {
        "checks without a violation": (0.5, 2),
        "right attempts found right": (0.0, 1),
        "wrong attempts found wrong": (0.0, 1),
    }
