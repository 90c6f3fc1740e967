"""Problems in, scored trajectories out: rollout, grading, then the meta-prover's values.

An algorithm says how its trajectories come about (`Algorithm.collection`); everything else is shared.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from backtrack_mrt.algos.base import BestOfN, Collection, Independent, Rationalized, TerminateOrContinue
from backtrack_mrt.data.canaries import CanaryWatch
from backtrack_mrt.grading import Grader
from backtrack_mrt.policy.engine import Engine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.rollouts.rollout import force_answers, grade, rollout
from backtrack_mrt.runs.directory import TokenLedger
from backtrack_mrt.runs.memory import told_when_out_of_memory
from backtrack_mrt.types import FloatArray, Group, Problem, Sampling, Scored, Trajectory


@dataclass
class Collector:
    """What a rollout needs, and what rollouts have cost so far: wall `seconds` by part and the token `ledger`.

    Rows are handled `max_rows` at a time (whole groups of `group_size`), from the first turn to the values, so that the
    values branch off the histories that are still cached in the engine.
    """

    protocol: EpisodeProtocol
    dialogue: Dialogue
    engine: Engine
    grader: Grader
    prover: MetaProver | None
    max_rows: int
    collection: Collection = field(default_factory=Independent)
    group_size: int = 1
    max_answer_tokens: int = 64
    window: int | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"rollout": 0.0, "grade": 0.0, "prover": 0.0})
    ledger: TokenLedger = field(default_factory=TokenLedger)
    canaries: CanaryWatch = field(default_factory=CanaryWatch)

    def collect(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        sampling: Sampling,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> list[Scored]:
        """Scored trajectories of the problems, one row each (a group repeats its problem), in order; `BestOfN` gives
        more than one per row. `on_rows` is told how many rows are newly done."""
        scored: list[Scored] = []
        step = max(self.max_rows // self.group_size, 1) * self.group_size
        for start in range(0, len(problems), step):
            rows = slice(start, start + step)
            doing = f"sampling {len(problems[rows])} trajectories and their values"
            with told_when_out_of_memory(doing, ("engine.max_rows", "the protocol's token limits")):
                scored += self._scored(self._trajectories(problems[rows], seeds[rows], sampling))
            on_rows(len(problems[rows]))
        return scored

    def _trajectories(self, problems: Sequence[Problem], seeds: Sequence[int], sampling: Sampling) -> list[Trajectory]:
        match self.collection:
            case Independent():
                return self._rollout(problems, seeds, sampling)
            case TerminateOrContinue():
                return self._terminate_or_continue(problems, seeds, sampling)
            case BestOfN(n):
                return self._best_of_n(problems, seeds, sampling, n)
            case Rationalized():
                return self._rationalized(problems, seeds, sampling)

    def _terminate_or_continue(
        self, problems: Sequence[Problem], seeds: Sequence[int], sampling: Sampling
    ) -> list[Trajectory]:
        """Per group one prefix, drawn with the policy and cut after a random number of turns; half of the group answers
        now, the other half goes on."""
        firsts = range(0, len(problems), self.group_size)
        drawn = self._rollout([problems[row] for row in firsts], [~seeds[row] % 2**32 for row in firsts], sampling)
        starts = []
        for row, trajectory in zip(firsts, drawn, strict=True):
            turns = int(np.random.default_rng(seeds[row]).integers(max(len(trajectory.turns), 1)))
            starts += [trajectory.branch(turns)] * self.group_size
        terminates = [row % self.group_size < self.group_size // 2 for row in range(len(problems))]
        stop = [row for row, now in enumerate(terminates) if now]
        go_on = [row for row, now in enumerate(terminates) if not now]
        ended = self._force([starts[row] for row in stop], [seeds[row] for row in stop], sampling)
        went_on = self._rollout([starts[row] for row in go_on], [seeds[row] for row in go_on], sampling)
        rows = dict(zip(stop, ended, strict=True)) | dict(zip(go_on, went_on, strict=True))
        return [rows[row] for row in range(len(problems))]

    def _best_of_n(
        self, problems: Sequence[Problem], seeds: Sequence[int], sampling: Sampling, n: int
    ) -> list[Trajectory]:
        """Every answer of every trajectory as a trajectory that ends there; from the second answer on it is the best
        of `n`: the trajectory's own and n − 1 others from the same prefix."""
        own = self._grade(self._rollout(problems, seeds, sampling))
        answered: list[Trajectory] = []
        # (row, where its previous answer stood, its own next answer), by the number of the answer
        later: dict[int, list[tuple[int, Trajectory, Trajectory]]] = defaultdict(list)
        for row, trajectory in enumerate(own):
            ends = [j + 1 for j, turn in enumerate(trajectory.turns) if turn.right is not None]
            for k, end in enumerate(ends):
                before = 0 if k == 0 else ends[k - 1]
                claimed = trajectory.turns[end - 1].parsed
                answer = claimed.answer if claimed is not None else None
                ending = replace(trajectory.branch(end), given=before, answer=answer)
                if k == 0:
                    answered.append(ending)
                else:
                    later[k].append((row, trajectory.branch(before), ending))
        for k, cases in sorted(later.items()):
            protocol = self.protocol.with_answers(k + 1)
            starts = [start for _, start, _ in cases for _ in range(n - 1)]
            others_seeds = [(seeds[row] + 2**32 * (1 + i)) for row, _, _ in cases for i in range(n - 1)]
            others = self._grade(self._rollout(starts, others_seeds, sampling, protocol))
            for case, (_, _, ending) in enumerate(cases):
                candidates = [ending, *others[case * (n - 1) : (case + 1) * (n - 1)]]
                answered.append(max(candidates, key=lambda t: bool(t.turns[-1].right)))
        order = {problem.id: place for place, problem in reversed(list(enumerate(problems)))}
        return sorted(answered, key=lambda t: order[t.problem.id])

    def _rationalized(self, problems: Sequence[Problem], seeds: Sequence[int], sampling: Sampling) -> list[Trajectory]:
        """Independent trajectories; those of problems that no member solved are drawn again with the gold answer as a
        hint in the prompt, which is then taken out."""
        own = self._grade(self._rollout(problems, seeds, sampling))
        solved = {t.problem.id for t in own if t.outcome == 1.0}
        hopeless = [row for row, problem in enumerate(problems) if problem.id not in solved and own[row].turns]
        hinted = [self.dialogue.hinted(own[row]) for row in hopeless]
        again = self._rollout(hinted, [~seeds[row] % 2**32 for row in hopeless], sampling)
        for row, trajectory in zip(hopeless, again, strict=True):
            own[row] = replace(trajectory, prompt_ids=own[row].prompt_ids)
        return own

    def _rollout(
        self,
        starts: Sequence[Problem] | Sequence[Trajectory],
        seeds: Sequence[int],
        sampling: Sampling,
        protocol: EpisodeProtocol | None = None,
    ) -> list[Trajectory]:
        protocol, reserve = protocol or self.protocol, self.prover.reserve if self.prover else None
        with self._timed("rollout"):
            trajectories = rollout(
                starts, seeds, protocol, self.dialogue, self.engine, sampling, self.window, reserve=reserve
            )
        return self._counted(trajectories)

    def _force(self, starts: Sequence[Trajectory], seeds: Sequence[int], sampling: Sampling) -> list[Trajectory]:
        with self._timed("rollout"):
            trajectories = force_answers(starts, seeds, self.dialogue, self.engine, sampling, self.max_answer_tokens)
        return self._counted(trajectories)

    def _counted(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        for t in trajectories:
            new = t.turns[t.given :]
            self.ledger.sampled += sum(len(turn.completion.token_ids) for turn in new)
            self.ledger.env += sum(len(turn.instruction_ids) for turn in new) + (0 if t.given else len(t.prompt_ids))
        return trajectories

    def _grade(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        with self._timed("grade"):
            return grade(trajectories, self.grader)

    def _scored(self, trajectories: list[Trajectory]) -> list[Scored]:
        trajectories = self._grade(trajectories)
        self.canaries.see(trajectories)
        values: list[FloatArray | None] = [None] * len(trajectories)
        if self.prover is not None:
            with self._timed("prover"):
                spent = self.prover.tokens
                values = list(self.prover.values(trajectories))
                self.ledger.prover += self.prover.tokens - spent
        return [Scored(trajectory, v) for trajectory, v in zip(trajectories, values, strict=True)]

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start


def groups_of(scored: Sequence[Scored], size: int) -> list[Group]:
    """Consecutive rows of one problem each, `size` at a time."""
    chunks = [tuple(scored[start : start + size]) for start in range(0, len(scored), size)]
    return [Group(members[0].trajectory.problem, members) for members in chunks]


def groups_by_problem(scored: Sequence[Scored]) -> list[Group]:
    """All trajectories of each problem, in order of first appearance."""
    gathered: dict[str, list[Scored]] = defaultdict(list)
    for member in scored:
        gathered[member.trajectory.problem.id].append(member)
    return [Group(members[0].trajectory.problem, tuple(members)) for members in gathered.values()]
