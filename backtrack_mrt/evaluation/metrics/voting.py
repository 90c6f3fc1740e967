"""Several samples per problem: pass@k and maj@k (docs/evaluation.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np

from backtrack_mrt.evaluation.metrics.turns import answer_after, answers, outcomes_by_answer
from backtrack_mrt.types import FloatArray, Scored, Trajectory


@dataclass(frozen=True, slots=True)
class Ballot:
    """The final answers of the S samples of a problem: how many are right, how many name each wrong answer (most
    first), how many give none. All right answers count as one answer, wrong ones are compared as strings."""

    right: int
    wrong: tuple[int, ...] = ()
    blank: int = 0

    @property
    def size(self) -> int:
        """S."""
        return self.right + sum(self.wrong) + self.blank


def ballots(scored: Sequence[Scored], limit: int) -> list[Ballot]:
    """One per problem, of the answers that stand at `limit` answers, in order of first appearance."""
    right: Counter[str] = Counter()
    blank: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = defaultdict(Counter)
    for s in scored:
        trajectory = s.trajectory
        name, answer = trajectory.problem.id, answer_after(trajectory, limit)
        wrong[name].update(())
        if outcomes_by_answer(trajectory, limit)[-1] == 1:
            right[name] += 1
        elif answer is None:
            blank[name] += 1
        else:
            wrong[name][answer] += 1
    return [
        Ballot(right[name], tuple(count for _, count in answers.most_common()), blank[name])
        for name, answers in wrong.items()
    ]


@lru_cache(maxsize=4096)
def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that one of k samples is right, estimated without bias from c right ones of n ≥ k:
    1 − C(n−c, k) / C(n, k) (2107.03374, eq. 1)."""
    return 1.0 - comb(n - c, k) / comb(n, k)


@lru_cache(maxsize=4096)
def majority(ballot: Ballot) -> FloatArray:
    """maj@k for k = 1 … S: probability that the most frequent answer of k of the S samples is right, over all subsets,
    ties broken uniformly. Samples without an answer do not vote; without any vote the result is wrong. Shape (S,).

    Exact. For every number r of right votes, subsets are counted in which no wrong answer has more than r votes, by
    the number of answers that have r as well.
    """
    size = ballot.size
    won = np.zeros(size + 1)
    for r in range(1, ballot.right + 1):
        rivals = [count for count in ballot.wrong if count >= r]
        subsets = np.zeros((len(rivals) + 1, size + 1))  # (answers that tie, votes and blanks besides the right ones)
        rest = ballot.blank + sum(ballot.wrong) - sum(rivals)  # these cannot reach r
        subsets[0, : rest + 1] = [float(comb(rest, votes)) for votes in range(rest + 1)]
        for count in rivals:
            more = np.zeros_like(subsets)
            for votes in range(r + 1):
                tied = int(votes == r)
                more[tied:, votes:] += comb(count, votes) * subsets[: len(subsets) - tied, : size + 1 - votes]
            subsets = more
        shared = (subsets / np.arange(1, len(subsets) + 1)[:, None]).sum(0)
        won[r:] += comb(ballot.right, r) * shared[: size + 1 - r]
    share: FloatArray = won[1:] / [float(comb(size, k)) for k in range(1, size + 1)]
    share.flags.writeable = False
    return share


def votes_by_answer(trajectory: Trajectory, most: int) -> FloatArray:
    """The chance that a vote over the first k answers of one trace is right, k = 1 … `most`, shape (most,): all of them
    where there are fewer, 0 without any."""
    given, found = answers(trajectory), np.zeros(most)
    for k in range(1, most + 1):
        cast = [(bool(trajectory.turns[j].right), answer) for j, answer in given[:k]]
        wrong = Counter(answer for right, answer in cast if not right)
        ballot = Ballot(sum(right for right, _ in cast), tuple(count for _, count in wrong.most_common()))
        found[k - 1] = majority(ballot)[-1] if cast else 0.0
    return found


def voting_curves(cast: Sequence[Ballot]) -> tuple[FloatArray, FloatArray]:
    """pass@k and maj@k of every problem, both of shape (P, S); S is the smallest number of samples of a problem."""
    size = min(ballot.size for ballot in cast)
    passed = np.array([[pass_at_k(ballot.size, ballot.right, k) for k in range(1, size + 1)] for ballot in cast])
    return passed, np.array([majority(ballot)[:size] for ballot in cast])
