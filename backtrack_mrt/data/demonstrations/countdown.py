"""Demonstrations of backtracking search on COUNTDOWN: what its embedded policy is taught.

As with SIGNS, errors are injected but never learnt, and some habits are imperfect and learnt: the demonstrator often
returns to the wrong step, so that reinforcement learning has something to improve.
"""

from __future__ import annotations

import random

from backtrack_mrt.data.countdown import Way, numbers_and_target, ways
from backtrack_mrt.data.demonstrations.files import Span
from backtrack_mrt.data.demonstrations.signs import NO_ERROR, DemoTurn, Trace
from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.types import Problem

HASTY = 0.2  # share of first attempts that are any way at all, and learnt
WRONG = 0.5  # share of the other attempts, and of revisions, that are wrong
EXACT = 0.6  # returns to the right step
FORCED = 0.12  # before the first turn, and after each: end with the forced answer
MOST = 5  # attempts of a trace


def demonstrate_countdown(problem: Problem, rng: random.Random, hasty: float = 0.0) -> list[DemoTurn]:
    """One stochastic demonstration: attempt, then detect, backtrack, revise until right or out of revisions.

    hasty: share of all attempts, revisions too, that are any way at all, and learnt (0: `HASTY`, of the first ones)."""
    return _CountdownTrace(problem, rng, hasty).run()


class _CountdownTrace(Trace):
    """way: the standing one, None before the first attempt."""

    def __init__(self, problem: Problem, rng: random.Random, hasty: float) -> None:
        super().__init__(problem, rng, FORCED)
        given = numbers_and_target(problem)
        assert given is not None
        self.hasty = hasty
        self.all, self.target = ways(given[0]), given[1]
        self.right = [way for way in self.all if way.value == self.target]
        self.way: Way | None = None
        self.seen: set[Way] = set()

    def run(self) -> list[DemoTurn]:
        kept = 0
        if self.force_answer():
            return self.turns
        for left in reversed(range(MOST)):
            self.write(kept, *self.draw(kept))
            if self.force_answer():
                break
            wrong = self.detect()
            if self.force_answer() or wrong is None or not left:
                break
            kept = wrong - 1 if self.rng.random() < EXACT else 2 - wrong
            self.add(BacktrackPhase.BACKTRACK, Span(f"Backtrack to step {kept}"))
            if self.force_answer():
                break
        return self.turns

    def answer(self) -> str:
        """The standing solution if it is right, else one that begins with its first step, else any that is right: so
        the value of a prefix rises with every step that is right."""
        right = self.right
        if self.way is not None:
            right = [self.way] if self.way in right else self.right_after(self.way) or right
        return self.rng.choice(right).expression

    def right_after(self, way: Way) -> list[Way]:
        """The solutions that begin with the first step of `way`."""
        return [other for other in self.right if other.steps[0] == way.steps[0]]

    def draw(self, kept: int) -> tuple[Way, bool]:
        """The next way and whether it is learnt: a right one, or a new wrong one; with the standing first step if that
        is kept."""
        first = self.way.steps[0] if self.way and kept else None
        fitting = [way for way in self.all if first in (None, way.steps[0])]
        if (self.hasty or self.way is None) and self.rng.random() < (self.hasty or HASTY):
            return self.rng.choice(fitting), True
        right = [way for way in fitting if way in self.right]
        wrong = [way for way in fitting if way not in self.right and way not in self.seen]
        if right and (not wrong or self.rng.random() >= WRONG):
            return self.rng.choice(right), True
        return self.rng.choice(wrong or fitting), False

    def write(self, kept: int, way: Way, learn: bool) -> None:
        """The steps behind those kept, and the box. What an operation makes, and the box, follow: they are learnt."""
        spans = []
        for k in range(kept, 2):
            operation, _, made = way.steps[k].partition(" = ")
            spans += [Span(f"{chr(10) if k > kept else ''}## Step {k + 1}:"), Span(f" {operation}", learn)]
            spans.append(Span(f" = {made}"))
        phase = BacktrackPhase.REVISE if self.turns else BacktrackPhase.ATTEMPT
        self.add(phase, *spans, Span("\n\\boxed{" + way.expression + "}"))
        self.way = way
        self.seen.add(way)

    def detect(self) -> int | None:
        """States the miss, then the verdict: the first step that leads nowhere. Returns it."""
        assert self.way is not None
        miss = self.way.value - self.target
        if not miss:
            self.add(BacktrackPhase.DETECT, Span(f"Miss: 0;\n{NO_ERROR}"))
            return None
        wrong = 2 if self.right_after(self.way) else 1
        self.add(BacktrackPhase.DETECT, Span(f"Miss: {miss};\nError in step {wrong}"))
        return wrong
