"""Demonstrations of backtracking search on COUNTDOWN: what its embedded policy is taught.

As with SIGNS, errors are injected but never learnt, and some habits are imperfect and learnt: the demonstrator often
returns to the wrong step, so that reinforcement learning has something to improve.
"""

from __future__ import annotations

import random

from backtrack_mrt.data.countdown import Way, numbers_and_target, ways
from backtrack_mrt.data.demonstrations.files import Span
from backtrack_mrt.data.demonstrations.signs import FORCED_ANSWER, INSTRUCTIONS, NO_ERROR, DemoTurn
from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.types import Problem

WRONG = 0.6  # share of first attempts, and of revisions, that are wrong
EXACT = 0.6  # returns to the right step
FORCED = 0.15  # after each turn: end with the forced answer
MOST = 5  # attempts of a trace


def demonstrate_countdown(problem: Problem, rng: random.Random) -> list[DemoTurn]:
    """One stochastic demonstration: attempt, then detect, backtrack, revise until right or out of revisions."""
    return _Trace(problem, rng).run()


class _Trace:
    """A demonstration under construction."""

    def __init__(self, problem: Problem, rng: random.Random) -> None:
        given = numbers_and_target(problem)
        assert given is not None
        self.problem, self.rng = problem, rng
        self.all, self.target = ways(given[0]), given[1]
        self.right = [way for way in self.all if way.value == self.target]
        self.seen: set[Way] = set()
        self.turns: list[DemoTurn] = []

    def run(self) -> list[DemoTurn]:
        way, kept = None, 0
        for attempt in range(MOST):
            if self.force_answer():
                break
            way, learn = self.draw(way if kept else None)
            self.write(way, kept, learn)
            if self.force_answer():
                break
            wrong = self.detect(way)
            if wrong is None or attempt == MOST - 1 or self.force_answer():
                break
            kept = wrong - 1 if self.rng.random() < EXACT else 2 - wrong
            self.add(BacktrackPhase.BACKTRACK, Span(f"Backtrack to step {kept}"))
        return self.turns

    def add(self, phase: str, *spans: Span) -> None:
        asked = "Answer." if phase == FORCED_ANSWER else INSTRUCTIONS[BacktrackPhase(phase)]
        if not self.turns:
            asked = self.problem.question + ("\n" if phase == FORCED_ANSWER else "") + asked
        self.turns.append(DemoTurn(phase, asked, spans))

    def force_answer(self) -> bool:
        if self.rng.random() >= FORCED:
            return False
        self.add(FORCED_ANSWER, Span(r"\boxed{", learn=False), Span(self.rng.choice(self.right).expression + "}"))
        return True

    def draw(self, kept: Way | None) -> tuple[Way, bool]:
        """The next way and whether it is learnt: a right one, or a new wrong one; with the first step of `kept`."""
        fitting = [way for way in self.all if kept is None or way.steps[0] == kept.steps[0]]
        right = [way for way in fitting if way in self.right]
        wrong = [way for way in fitting if way not in self.right and way not in self.seen]
        if right and (not wrong or self.rng.random() >= WRONG):
            return self.rng.choice(right), True
        way = self.rng.choice(wrong or fitting)
        self.seen.add(way)
        return way, False

    def write(self, way: Way, kept: int, learn: bool) -> None:
        """The steps behind those kept, and the box. What an operation makes, and the box, follow: they are learnt."""
        spans = []
        for k in range(kept, 2):
            operation, _, made = way.steps[k].partition(" = ")
            spans += [Span(f"{chr(10) if k > kept else ''}## Step {k + 1}:"), Span(f" {operation}", learn)]
            spans.append(Span(f" = {made}"))
        phase = BacktrackPhase.REVISE if self.turns else BacktrackPhase.ATTEMPT
        self.add(phase, *spans, Span("\n\\boxed{" + way.expression + "}"))

    def detect(self, way: Way) -> int | None:
        """States the miss, then the verdict: the first step that leads nowhere. Returns it."""
        miss = way.value - self.target
        if not miss:
            self.add(BacktrackPhase.DETECT, Span(f"Miss: 0;\n{NO_ERROR}"))
            return None
        wrong = 2 if any(other.steps[0] == way.steps[0] for other in self.right) else 1
        self.add(BacktrackPhase.DETECT, Span(f"Miss: {miss};\nError in step {wrong}"))
        return wrong
