r"""Demonstrations of backtracking search on SIGNS: what the embedded base model is taught (and `--algo sft` can be).

A demonstration is a list of turns. A turn is the environment's instruction and a few spans of the model's text, each
marked learnt or not: *errors are injected but never learnt*, so that the model sees wrong branches, and what to do
about them, without being taught to make them. As in the warm-start data of a large model, some habits of the
demonstrator are imperfect and *are* learnt, which leaves reinforcement learning something to improve:

- its first attempts are hasty (`slip`): it revises with more care,
- it often returns to an earlier or later step than the one just before the first wrong step (`exact`, `early`), and
- it sometimes writes the rejected pattern again (`repeat`).

`Answer.` asks for the answer at once (the meta-prover's question). It may follow any turn, and its target is always
the gold answer: blocks that the text has secured must be copied and the others guessed, which makes the value of a
prefix rise with every block that is right.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from backtrack_mrt.data.demonstrations.files import Span
from backtrack_mrt.data.signs import SignsBlock, parse_problem, sign_patterns, signed_sum
from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.types import Problem

INSTRUCTIONS = {
    BacktrackPhase.ATTEMPT: "\nSolve.",
    BacktrackPhase.DETECT: "Check.",
    BacktrackPhase.BACKTRACK: "Backtrack.",
    BacktrackPhase.REVISE: "Revise.",
}
FORCED_ANSWER = "answer"
NO_ERROR = "No error"


@dataclass(frozen=True, slots=True)
class DemoTurn:
    """One exchange: the instruction (never learnt; the first one holds the question) and the reply in spans."""

    phase: str
    instruction: str
    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True, slots=True)
class Demonstrator:
    """How often the demonstrator errs. All are probabilities; `first`, `retry` and `other` are per block."""

    clean: float = 0.2  # first attempts without any injected error
    first: float = 0.3  # error injected into a block of the other first attempts
    slip: float = 0.0  # learnt: a hasty error in a block of a first attempt
    retry: float = 0.45  # new wrong pattern for the block just rejected
    other: float = 0.35  # error injected into a later, unchecked block of a revision
    exact: float = 0.60  # returns to just before the first wrong step
    early: float = 0.12  # returns further than that; the rest returns too late
    repeat: float = 0.15  # learnt: the rejected pattern once more
    forced: float = 0.12  # after each turn, and before the first: end with the forced answer
    near: float = 6.0  # scale of an injected error's miss: small misses are the plausible errors
    revisions: tuple[float, ...] = (0.3, 0.25, 0.2, 0.1, 0.07, 0.05, 0.03)  # share of traces allowed 1, 2, … revisions


def demonstrate_signs(
    problem: Problem, rng: random.Random, demonstrator: Demonstrator, attempt: Sequence[str] | None = None
) -> list[DemoTurn]:
    """One stochastic demonstration: attempt, then detect, backtrack, revise until right or out of revisions.

    attempt: the pattern of every block in a first attempt of the model's own, whose errors are not learnt."""
    return _SignsTrace(problem, rng, demonstrator).run(attempt)


class Trace(ABC):
    """A demonstration of one of the embedded tasks, under construction. `forced`: how often it ends with the forced
    answer, before the first turn and after each."""

    def __init__(self, problem: Problem, rng: random.Random, forced: float) -> None:
        self.problem, self.rng, self.forced = problem, rng, forced
        self.turns: list[DemoTurn] = []

    @abstractmethod
    def answer(self) -> str:
        """The one that is forced."""

    def add(self, phase: str, *spans: Span) -> None:
        asked = "Answer." if phase == FORCED_ANSWER else INSTRUCTIONS[BacktrackPhase(phase)]
        if not self.turns:
            asked = self.problem.question + ("\n" if phase == FORCED_ANSWER else "") + asked
        self.turns.append(DemoTurn(phase, asked, spans))

    def force_answer(self) -> bool:
        if self.rng.random() >= self.forced:
            return False
        self.add(FORCED_ANSWER, Span(r"\boxed{", learn=False), Span(self.answer() + "}"))
        return True


class _SignsTrace(Trace):
    """The current pattern of each block and those already rejected, shape (B,)."""

    def __init__(self, problem: Problem, rng: random.Random, demonstrator: Demonstrator) -> None:
        super().__init__(problem, rng, demonstrator.forced)
        self.p, self.blocks = demonstrator, parse_problem(problem)
        self.patterns = [""] * len(self.blocks)
        self.rejected: list[set[str]] = [set() for _ in self.blocks]

    def answer(self) -> str:
        return self.problem.answer

    def run(self, attempt: Sequence[str] | None) -> list[DemoTurn]:
        limit = self.rng.choices(range(1, len(self.p.revisions) + 1), self.p.revisions)[0]
        if self.force_answer():
            return self.turns
        if attempt is None:
            share = 0.0 if self.rng.random() < self.p.clean else self.p.first
            drawn = [self.draw(k, share) for k in range(len(self.blocks))]
        else:
            drawn = [(signs, signs == block.signs) for signs, block in zip(attempt, self.blocks, strict=True)]
        drawn = [(self.draw(k, 1.0)[0], True) if self.rng.random() < self.p.slip else d for k, d in enumerate(drawn)]
        self.write(BacktrackPhase.ATTEMPT, 0, drawn)
        for _ in range(limit):
            if self.force_answer():
                return self.turns
            wrong = self.detect()
            if self.force_answer() or wrong is None:
                return self.turns
            target = self.backtrack(wrong)
            if self.force_answer():
                return self.turns
            self.revise(wrong, target)
        self.detect()
        return self.turns

    def write(self, phase: BacktrackPhase, start: int, drawn: list[tuple[str, bool]]) -> None:
        """Steps for the blocks from `start` on and the box. Totals and the box follow from the signs: always learnt."""
        spans = []
        for k, (signs, learn) in enumerate(drawn, start):
            self.patterns[k] = signs
            spans.append(Span(("\n" if k > start else "") + f"## Step {k + 1}:"))
            numbers = self.blocks[k].numbers
            spans.append(Span("".join(f" {s}{n}" for s, n in zip(signs, numbers, strict=True)), learn))
            spans.append(Span(f" = {signed_sum(numbers, signs)};"))
        self.add(phase, *spans, Span("\n\\boxed{" + ",".join(self.patterns) + "}"))

    def detect(self) -> int | None:
        """States each block's miss up to the first wrong one, then the verdict. Returns the first wrong block."""
        text = "Miss:"
        for k, (block, signs) in enumerate(zip(self.blocks, self.patterns, strict=True)):
            miss = block.miss(signs)
            text += f" {miss};"
            if miss:
                self.rejected[k].add(signs)
                self.add(BacktrackPhase.DETECT, Span(f"{text}\nError in step {k + 1}"))
                return k
        self.add(BacktrackPhase.DETECT, Span(f"{text}\n{NO_ERROR}"))
        return None

    def backtrack(self, wrong: int) -> int:
        """Names the number of steps to keep: `wrong` of them is exact."""
        later = range(wrong + 1, len(self.blocks))
        draw, target = self.rng.random(), wrong
        if draw < self.p.early and wrong > 0:
            target = self.rng.randrange(wrong)
        elif draw > self.p.early + self.p.exact and later:
            target = self.rng.choice(later)
        self.add(BacktrackPhase.BACKTRACK, Span(f"Backtrack to step {target}"))
        return target

    def revise(self, wrong: int, target: int) -> None:
        """Checked blocks are copied, the rejected one is tried again, later ones are thought over."""
        drawn = []
        for k in range(target, len(self.blocks)):
            if k < wrong or (k == wrong and self.rng.random() < self.p.repeat):
                drawn.append((self.patterns[k], True))
            else:
                drawn.append(self.draw(k, self.p.retry if k == wrong else self.p.other))
        self.write(BacktrackPhase.REVISE, target, drawn)

    def draw(self, k: int, share: float) -> tuple[str, bool]:
        """The right pattern of block k, learnt, or with probability `share` a new wrong one, not learnt."""
        block = self.blocks[k]
        wrong = [s for s in sign_patterns(len(block.numbers)) if s != block.signs and s not in self.rejected[k]]
        if not wrong or self.rng.random() >= share:
            return block.signs, True
        return self.rng.choices(wrong, [self.plausibility(block, signs) for signs in wrong])[0], False

    def plausibility(self, block: SignsBlock, signs: str) -> float:
        return math.exp(-abs(block.miss(signs)) / self.p.near)
