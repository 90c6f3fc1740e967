"""The words of the project, as frozen data. Reading this file top to bottom explains one RL step.

A *problem* is solved in *turns* (MRT's "episodes"). The turns so far form a *prefix* c_j: the prompt and turns
z_0 … z_{j-1}. A finished sequence of turns is a *trajectory*; the G trajectories of one problem are a *group*.
Shapes: E turns, T tokens of a turn, I instruction tokens, G group members. Tokens are the truth: text is decoded from
them for parsing and display and is never tokenised again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

TokenIds = tuple[int, ...]
FloatArray = NDArray[np.float64]


class Phase(StrEnum):
    """What a turn is for: the names that mean the same in every protocol. Others are the protocol's own; phases are
    compared as strings."""

    ATTEMPT = "attempt"  # the first solution
    FORCE = "force"  # the meta-prover's: answer now


class StopReason(StrEnum):
    """Why a trajectory ended."""

    FINISHED = "finished"  # the protocol came to its end
    TURN_LIMIT = "turn_limit"  # the model would go on, but no further turn is allowed
    BUDGET = "budget"  # the token budget or the model's context is used up (Gymnasium: truncated)
    VIOLATION = "violation"  # a turn broke the protocol


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # a stop id was sampled; it is the last token of the completion
    LENGTH = "length"  # `max_new_tokens` were sampled
    CUT = "cut"  # the model went on: the protocol cut its stream here (see `EpisodeProtocol.cuts`)
    FORCED = "forced"  # the model stopped, and is made to go on in the same message: its stop id was taken off


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer y*. rel_tol: relative tolerance of numeric answers (None: exact). canary: whether
    the gold is wrong on purpose (`backtrack_mrt.data.canaries`). Raises ValueError for a field of the wrong kind, for
    all readers of problems."""

    id: str
    question: str
    answer: str
    source: str = ""
    rel_tol: float | None = None
    canary: bool = False

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer", "source"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} = {getattr(self, name)!r} is no text")
        share = self.rel_tol
        if share is not None and (isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1):
            raise ValueError(f"rel_tol = {share!r} is no share from 0 to 1, such as 0.01")


@dataclass(frozen=True, slots=True)
class TurnSpec:
    """What the protocol asks next. `phase` names the prompt file, `fields` fill its placeholders."""

    phase: str
    max_new_tokens: int
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a turn claims, as far as its phase claims it.

    answer: content of the turn's box. steps: texts of the steps written in this turn, in order.
    step: the first wrong step named by a verdict (1-based), or the step returned to (0 = the beginning).
    verdict: True for "no error", False for an error.
    """

    answer: str | None = None
    steps: tuple[str, ...] = ()
    step: int | None = None
    verdict: bool | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Tokens sampled in one turn, the stop id included. `logprobs` are those of the policy that sampled, at the
    sampling temperature; both have length T ≥ 1 (T ≥ 0 if it was forced to go on)."""

    token_ids: TokenIds
    logprobs: tuple[float, ...]
    finish: Finish

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.token_ids)} tokens but {len(self.logprobs)} logprobs")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn z_j: the environment's instruction (I tokens, not trained on) and the model's completion (T tokens).

    `parsed` is None exactly when the turn was not accepted: it broke the protocol (`violation` names how) or was cut
    off by the budget. `reward` is what the answer it gives is worth, 1 if right; None without one or before grading.
    The first turn has no instruction tokens: its instruction is part of the prompt."""

    spec: TurnSpec
    text: str
    parsed: Parsed | None
    instruction_ids: TokenIds
    completion: Completion
    violation: str | None = None
    reward: float | None = None

    @property
    def answer(self) -> str | None:
        """The answer that it gives, None without one."""
        return self.parsed.answer if self.parsed else None

    @property
    def target(self) -> int | None:
        """The step that it returns to, None where it returns to none."""
        return self.parsed.step if self.parsed and self.parsed.verdict is None else None

    @property
    def right(self) -> bool | None:
        """Whether the answer is wholly right; None without an answer or before grading."""
        return None if self.reward is None else self.reward == 1

    def __len__(self) -> int:
        return len(self.instruction_ids) + len(self.completion.token_ids)


def as_rows(given: object) -> list[FloatArray] | None:
    """Arrays of numbers that a plug-in gave; None for anything else."""
    try:
        return [np.asarray(row, dtype=np.float64) for row in given]  # type: ignore[attr-defined]
    except (TypeError, ValueError, RuntimeError):  # torch: a tensor that a gradient goes through
        return None


def joined_ids(prompt_ids: TokenIds, turns: Sequence[Turn]) -> TokenIds:
    """Token ids of a prompt and the turns after it."""
    ids = list(prompt_ids)
    for turn in turns:
        ids += turn.instruction_ids
        ids += turn.completion.token_ids
    return tuple(ids)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A problem and its turns. `stop` is None while it is still going on.

    answer: the final answer that stands, None without one. outcome: R, its reward (1.0 if it is right) where the
    protocol was kept, else 0.0; NaN until graded. verdict: the grader's word on `answer`. given: leading turns that
    this rollout did not sample, because it was branched off another one; they are never trained on."""

    problem: Problem
    prompt_ids: TokenIds = ()
    turns: tuple[Turn, ...] = ()
    stop: StopReason | None = None
    answer: str | None = None
    outcome: float = math.nan
    verdict: str | None = None
    given: int = 0

    def prefix_ids(self, turns: int) -> TokenIds:
        """Token ids of c_j: the prompt and the first `turns` turns."""
        return joined_ids(self.prompt_ids, self.turns[:turns])

    @property
    def token_ids(self) -> TokenIds:
        """All tokens of the trajectory, c_E."""
        return self.prefix_ids(len(self.turns))

    @property
    def sampled_tokens(self) -> int:
        """Tokens the model sampled (the budget's unit)."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)

    @property
    def env_tokens(self) -> int:
        """Tokens the environment inserted: the prompt and the instructions."""
        return len(self.prompt_ids) + sum(len(turn.instruction_ids) for turn in self.turns)

    def turn_index(self) -> list[int]:
        """For every token after the prompt, the turn that sampled it, or -1 for a token that was not sampled: of an
        instruction or of a given turn."""
        index: list[int] = []
        for j, turn in enumerate(self.turns):
            sampled_by = j if j >= self.given else -1
            index += [-1] * len(turn.instruction_ids) + [sampled_by] * len(turn.completion.token_ids)
        return index

    def branch(self, turns: int) -> Trajectory:
        """The prefix c_j (j = `turns`) as the start of another rollout."""
        return Trajectory(self.problem, self.prompt_ids, self.turns[:turns], given=turns)


@dataclass(frozen=True, slots=True)
class Scored:
    """A graded trajectory with the meta-prover's values V_0 … V_E, shape (E+1,); None when no prover ran. `baselines`:
    a critic's b(c_0) … b(c_{E−1}), the chances before each turn that the trajectory ends right, shape (E,); None
    without a critic. `weights`: what the algorithm made of its turns, shape (E,); None before it did. `frozen_values`:
    V_0 … V_E by the frozen base's meta-prover, one ruler for all policies; None where it was not asked."""

    trajectory: Trajectory
    values: FloatArray | None = None
    weights: FloatArray | None = None
    baselines: FloatArray | None = None
    frozen_values: FloatArray | None = None

    def __post_init__(self) -> None:
        for name, numbers in (("weights", self.weights), ("baselines", self.baselines)):
            if numbers is not None and numbers.shape != (len(self.trajectory.turns),):
                raise ValueError(f"{len(self.trajectory.turns)} turns need as many {name}, got shape {numbers.shape}")
        for values in (self.values, self.frozen_values):
            if values is not None and values.shape != (len(self.trajectory.turns) + 1,):
                raise ValueError(f"{len(self.trajectory.turns)} turns need one value more, got shape {values.shape}")

    def token_weights(self) -> FloatArray:
        """The weight of every token after the prompt: its turn's where this rollout sampled it, else 0. Shape (T,)."""
        if self.weights is None:
            raise ValueError("no algorithm has weighed the turns")
        padded = np.append(self.weights, 0.0)  # index −1, a token that was not sampled, picks the 0
        weights: FloatArray = padded[np.array(self.trajectory.turn_index(), dtype=np.int64)]
        return weights

    @property
    def progress(self) -> FloatArray:
        """p_j = V_{j+1} − V_j per turn, shape (E,)."""
        if self.values is None:
            raise ValueError("progress needs the meta-prover's values")
        return np.diff(self.values)


@dataclass(frozen=True, slots=True)
class Group:
    """The G ≥ 1 scored trajectories of one problem."""

    problem: Problem
    members: tuple[Scored, ...]

    @property
    def outcomes(self) -> FloatArray:
        """R of each, shape (G,)."""
        return np.array([member.trajectory.outcome for member in self.members])


@dataclass(frozen=True, slots=True)
class TokenLedger:
    """Tokens that were spent: sampled by the policy, inserted by the environment, on the meta-prover's answers.
    ``sum(ledgers, TokenLedger())`` adds them up."""

    sampled: int = 0
    env: int = 0
    prover: int = 0

    def __add__(self, other: TokenLedger) -> TokenLedger:
        return TokenLedger(self.sampled + other.sampled, self.env + other.env, self.prover + other.prover)

    @property
    def total(self) -> int:
        """All of them."""
        return self.sampled + self.env + self.prover

    def as_json(self) -> dict[str, int]:
        """Plain data for summary.json, with the total."""
        return asdict(self) | {"total": self.total}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. top_p is 1 in training: truncated sampling breaks the importance ratio."""

    temperature: float = 1.0
    top_p: float = 1.0
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a generate call. The tokens drawn depend on the prefix, the weights, the sampling and `seed` only,
    never on the other rows of the batch."""

    prefix_ids: TokenIds
    max_new_tokens: int
    seed: int
