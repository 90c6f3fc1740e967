"""Finds the pieces of warm-start demonstrations in a model's own rollouts (docs/problems.md).

Of every problem a group of attempts is drawn. For one wrong attempt the meta-prover says after which of its steps
success is likeliest; from there new continuations are branched off, and a right one is kept. Checks are the model's own
where they come to the right conclusion, else the plain verdict.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backtrack_mrt.data.demonstrations.attempts import Attempt
from backtrack_mrt.data.demonstrations.stitching import (
    RIGHT_CHECK,
    Pieces,
    backtrack_text,
    best_target,
    chosen,
    error_text,
    steps_of,
)
from backtrack_mrt.rollouts.collector import Collector, groups_by_problem
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.rollouts.replay import accepted
from backtrack_mrt.rollouts.rollout import grade, token_starts
from backtrack_mrt.types import Completion, Finish, FloatArray, Group, Parsed, Problem, Scored, Trajectory, Turn

Wanted = Callable[
    [int, Turn, Parsed], bool
]  # whether the turn drawn for this start, and its claim, are as they should be


@dataclass(frozen=True)
class WarmStart:
    """Draws attempts, checks and continuations with the collector's policy, under its protocol (`backtrack`).

    attempts: per problem. branches: checks and continuations drawn for each place where one is wanted."""

    collector: Collector
    prover: MetaProver
    temperature: float
    attempts: int
    branches: int
    seed: int

    def draw(self, problems: Sequence[Problem]) -> list[Group]:
        """A group of graded attempts of every problem."""
        starts = [Trajectory(problem) for problem in problems for _ in range(self.attempts)]
        return groups_by_problem([Scored(trajectory) for trajectory in self._turns(starts, "attempt")])

    def labelled(self, attempts: Sequence[Attempt]) -> list[Group]:
        """Groups of other models' attempts; those that the protocol does not accept are left out."""
        scored = list[Scored]()
        for attempt in attempts:
            trajectory = self._accepted(attempt.problem, attempt.text)
            if trajectory is not None:
                turn = replace(trajectory.turns[0], reward=float(attempt.right))
                scored.append(Scored(replace(trajectory, turns=(turn,))))
        return groups_by_problem(scored)

    def pieces(self, groups: Sequence[Group]) -> list[Pieces]:
        """What every group yields. All groups go through the engine together."""
        picked = [chosen(group, random.Random(f"{self.seed}/{group.problem.id}")) for group in groups]
        wrong = {i: attempt for i, (attempt, _) in enumerate(picked) if attempt is not None}
        right = {i: attempt for i, (_, attempt) in enumerate(picked) if attempt is not None}
        found = [Pieces() for _ in groups]
        for i, check in self._best(right, _finds_no_error, "check right").items():
            found[i] = replace(found[i], right=right[i].turns[0].text, right_check=check or RIGHT_CHECK)
        targets = dict(zip(wrong, map(best_target, self.step_values(list(wrong.values()))), strict=True))
        starts: dict[int, Trajectory] = {}
        for i, check in self._best(wrong, lambda i, _, said: said.step == targets[i] + 1, "check wrong").items():
            attempt, target, check = wrong[i].turns[0].text, targets[i], check or error_text(targets[i])
            start = self._accepted(wrong[i].problem, attempt, check, backtrack_text(target))
            if start is not None:
                starts[i] = start
                found[i] = replace(found[i], wrong=attempt, target=target, check=check)
        revised: dict[int, Trajectory] = {}
        for i, text in self._best(starts, lambda _, turn, said: turn.right is True, "revise").items():
            text = text or _same_beginning(picked[i], targets[i])
            texts = [turn.text for turn in starts[i].turns]
            whole = None if text is None else self._accepted(starts[i].problem, *texts, text)
            if whole is not None:
                revised[i] = whole
                found[i] = replace(found[i], revision=text)
        for i, check in self._best(revised, _finds_no_error, "check revised").items():
            found[i] = replace(found[i], closing=check or RIGHT_CHECK)
        return found

    def step_values(self, attempts: Sequence[Trajectory]) -> list[FloatArray]:
        """V_0 … V_{S−1} of each attempt: the value of an answer forced after each of its steps but the last."""
        dialogue = self.collector.dialogue
        prefixes, counts = [], []
        for attempt in attempts:
            turn, steps = attempt.turns[0], steps_of(attempt)
            offsets, end = [], 0
            for step in steps[1:]:
                end = turn.text.index(step, end)
                offsets.append(end)
            cuts = token_starts(turn.completion.token_ids, offsets, dialogue.chat.decode)
            forced = [dialogue.forced(attempt, 0)]
            for cut in cuts:
                whole = turn.completion
                completion = Completion(whole.token_ids[:cut], whole.logprobs[:cut], Finish.LENGTH)
                forced.append(dialogue.forced(replace(attempt, turns=(replace(turn, completion=completion),)), 1))
            prefixes += [(ids, attempt.problem) for ids in forced]
            counts.append(len(forced))
        values = self.prover.prefix_values(prefixes)
        return np.split(values, np.cumsum(counts)[:-1]) if counts else []

    def _best(self, starts: dict[int, Trajectory], wanted: Wanted, name: str) -> dict[int, str | None]:
        """For each start the text of a next turn that is as `wanted`, of `branches` drawn ones; None without one."""
        rows = [(i, start.branch(len(start.turns))) for i, start in starts.items() for _ in range(self.branches)]
        turns = self._turns([start for _, start in rows], name)
        fitting: dict[int, list[str]] = {i: [] for i in starts}
        for (i, start), trajectory in zip(rows, turns, strict=True):
            if len(trajectory.turns) > len(start.turns):
                turn = trajectory.turns[-1]
                if turn.parsed is not None and wanted(i, turn, turn.parsed):
                    fitting[i].append(turn.text)
        return {
            i: random.Random(f"{self.seed}/{name}/{starts[i].problem.id}").choice(texts) if texts else None
            for i, texts in fitting.items()
        }

    def _turns(self, starts: Sequence[Trajectory], name: str) -> list[Trajectory]:
        """The starts with one more turn each, graded. A row's seed depends on its problem and its number among the rows
        of that problem, not on the other problems."""
        rows, seeds = Counter[str](), list[int]()
        for start in starts:
            rows[start.problem.id] += 1
            text = f"{self.seed}/{name}/{start.problem.id}/{rows[start.problem.id]}"
            seeds.append(random.Random(text).getrandbits(40))
        played = self.collector.play(starts, seeds, self.temperature, most_turns=1, reserve=self.prover.reserve)
        return grade(played, self.collector.grader)

    def _accepted(self, problem: Problem, *texts: str) -> Trajectory | None:
        return accepted(problem, texts, self.collector.protocol, self.collector.dialogue)


def _finds_no_error(_: int, turn: Turn, said: Parsed) -> bool:
    return said.verdict is True


def _same_beginning(picked: tuple[Trajectory | None, Trajectory | None], target: int) -> str | None:
    """The rest of the right attempt after step `target`, if the attempts agree up to there."""
    wrong, right = picked
    if wrong is None or right is None or steps_of(wrong)[:target] != steps_of(right)[:target]:
        return None
    rest = steps_of(right)[target:]
    return "\n".join(rest) if rest else None
