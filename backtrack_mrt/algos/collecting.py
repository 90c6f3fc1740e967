"""How the trajectories of a group come about: from the problem, from a shared prefix, as the best of n, with a hint.

A way of collecting is a class that is given the starts and a `Play`, which does what needs the policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from backtrack_mrt.types import Problem, Trajectory


class Play(Protocol):
    """What a way of collecting may do with the policy. One seed per start; a start is a problem, or a prefix to go on
    from (`Trajectory.branch`). All tokens are counted."""

    @property
    def group_size(self) -> int:
        """G: a group is so many consecutive rows of one problem."""

    @property
    def others(self) -> int:
        """Leading rows of the first group that another process plays: they are here because the group shares something
        (`Collection.shares`)."""

    def rollout(
        self, starts: Sequence[Problem | Trajectory], seeds: Sequence[int], answers: int | None = None, known: int = 0
    ) -> list[Trajectory]:
        """Each start played to the end of the protocol, or to its `answers`-th answer. known: so many leading ones are
        played by another process, too, which counts their tokens."""

    def force(self, starts: Sequence[Problem | Trajectory], seeds: Sequence[int]) -> list[Trajectory]:
        """Each start ended by an answer now: the meta-prover's question, answered by the policy."""

    def grade(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories with the grade of every answer, and their outcomes."""

    def hinted(self, trajectory: Trajectory) -> Trajectory:
        """A start: the trajectory's problem with the gold answer as a hint in its prompt (the style's `hint.md`)."""


@dataclass(frozen=True)
class Collection(ABC):
    """How the trajectories of groups come about. `hints`: whether it needs the prompt style's `hint.md`. `spans`:
    whether several processes may each do some of the rows, whatever groups these belong to. `shares`: whether members
    of a group have a start in common; then a process whose rows begin within a group is given the rows before, too."""

    hints: ClassVar[bool] = False
    spans: ClassVar[bool] = False
    shares: ClassVar[bool] = False

    @abstractmethod
    def collect(self, play: Play, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Trajectory]:
        """The trajectories of the problems (a group repeats its problem) in the order of these, graded or not; without
        those of `play.others`."""


@dataclass(frozen=True)
class Independent(Collection):
    """Every trajectory starts at its problem."""

    spans: ClassVar[bool] = True

    def collect(self, play: Play, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Trajectory]:
        return play.rollout(problems, seeds)


@dataclass(frozen=True)
class TerminateOrContinue(Collection):
    """A group shares a prefix, drawn with the policy and stopped after a random number of turns: half of its members
    answer now (the meta-prover's forced answer), the other half go on. Processes that share a group draw its prefix
    each, with the same seed."""

    spans: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    def collect(self, play: Play, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Trajectory]:
        firsts = range(0, len(problems), play.group_size)
        known = int(play.others > 0)
        drawn = play.rollout([problems[row] for row in firsts], [_other(seeds[row]) for row in firsts], known=known)
        starts: list[Trajectory] = []
        for row, trajectory in zip(firsts, drawn, strict=True):
            turns = int(np.random.default_rng(seeds[row]).integers(max(len(trajectory.turns), 1)))
            starts += [trajectory.branch(turns)] * play.group_size
        mine = range(play.others, len(problems))
        now = [row for row in mine if row % play.group_size < play.group_size // 2]
        later = [row for row in mine if row % play.group_size >= play.group_size // 2]
        ended = play.force([starts[row] for row in now], [seeds[row] for row in now])
        went_on = play.rollout([starts[row] for row in later], [seeds[row] for row in later])
        rows = dict(zip(now, ended, strict=True)) | dict(zip(later, went_on, strict=True))
        return [rows[row] for row in mine]


@dataclass(frozen=True)
class BestOfN(Collection):
    """Every answer of a trajectory is a member of its own that ends there, with what came before as given turns; from
    the second answer on it is the best of `n`: the trajectory's own and n − 1 others drawn from the same prefix."""

    n: int

    def collect(self, play: Play, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Trajectory]:
        answered: list[Trajectory] = []
        # (row, where its previous answer stood, its own next answer), by the number of the answer
        later: dict[int, list[tuple[int, Trajectory, Trajectory]]] = defaultdict(list)
        for row, trajectory in enumerate(play.grade(play.rollout(problems, seeds))):
            ends = [j + 1 for j, turn in enumerate(trajectory.turns) if turn.right is not None]
            for k, end in enumerate(ends):
                before = 0 if k == 0 else ends[k - 1]
                ending = replace(trajectory.branch(end), given=before, answer=trajectory.turns[end - 1].answer)
                if k == 0:
                    answered.append(ending)
                else:
                    later[k].append((row, trajectory.branch(before), ending))
        for k, cases in sorted(later.items()):
            starts = [start for _, start, _ in cases for _ in range(self.n - 1)]
            others_seeds = [(seeds[row] + 2**32 * (1 + i)) for row, _, _ in cases for i in range(self.n - 1)]
            others = play.grade(play.rollout(starts, others_seeds, answers=k + 1))
            for case, (_, _, ending) in enumerate(cases):
                candidates = [ending, *others[case * (self.n - 1) : (case + 1) * (self.n - 1)]]
                answered.append(max(candidates, key=lambda t: t.turns[-1].reward or 0.0))
        order = {problem.id: place for place, problem in reversed(list(enumerate(problems)))}
        return sorted(answered, key=lambda t: order[t.problem.id])


@dataclass(frozen=True)
class Rationalized(Collection):
    """Independent; a problem that no member solved is tried again with the gold answer as a hint in the prompt. The
    hint is not part of the trajectory."""

    hints: ClassVar[bool] = True

    def collect(self, play: Play, problems: Sequence[Problem], seeds: Sequence[int]) -> list[Trajectory]:
        own = play.grade(play.rollout(problems, seeds))
        solved = {t.problem.id for t in own if t.outcome == 1.0}
        hopeless = [row for row, problem in enumerate(problems) if problem.id not in solved and own[row].turns]
        hinted = [play.hinted(own[row]) for row in hopeless]
        again = play.rollout(hinted, [_other(seeds[row]) for row in hopeless])
        for row, trajectory in zip(hopeless, again, strict=True):
            own[row] = replace(trajectory, prompt_ids=own[row].prompt_ids)
        return own


def _other(seed: int) -> int:
    """A second seed of 32 bits made of a row's."""
    return ~seed % 2**32
