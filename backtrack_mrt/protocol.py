"""The episode protocol: which turn comes next, and what a turn's text claims. Pure text and state; no tokens sampled.

`EpisodeProtocol` is what a plug-in writes (one file in `envs/`); `Episode` runs one trajectory through it. The
Gymnasium environment and the batched rollout both step `Episode`, so they cannot disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from backtrack_mrt.types import (
    Completion,
    Finish,
    Parsed,
    Problem,
    StopReason,
    TokenIds,
    Trajectory,
    Turn,
    TurnSpec,
    joined_ids,
)


class ProtocolViolation(Exception):
    """Raised by `parse` for a turn that breaks the protocol. It ends the trajectory with outcome 0; it never leaves
    the environment. `name` is counted in the metrics: keep it a short snake_case word."""

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Share:
    """So many `hits` `of` what was counted, such as right choices of all choices. Shares are pooled over trajectories:
    Σ hits / Σ of."""

    hits: float
    of: float


class EpisodeProtocol(BaseModel, ABC):
    """A multi-turn protocol. Instances are frozen and stateless: the same turns always lead to the same next turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: ClassVar[str] = ""
    one_message: ClassVar[bool] = False  # whether all turns are one message, in which the model is asked only once
    phases: ClassVar[Mapping[str, str]] = {}  # what turns of a phase are for, in a few words, for readers of a report
    token_budget: int = Field(1024, gt=0, description="sampled tokens per trajectory, all turns together")

    @abstractmethod
    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        """What to ask after `turns` (all accepted), or why to stop. The first call has no turns."""

    @abstractmethod
    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        """What the turn's text claims, given the turns before it. Raises ProtocolViolation. Must run in linear time:
        the text is untrusted."""

    def parse_piece(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        """What a turn claims after which the model's stream goes on (see `cuts`). By default as any turn."""
        return self.parse(phase, text, turns)

    def final_answer(self, turns: Sequence[Turn]) -> str | None:
        """The answer that stands after `turns`: by default the latest one given."""
        return next((t.parsed.answer for t in reversed(turns) if t.parsed and t.parsed.answer is not None), None)

    @property
    @abstractmethod
    def max_turns(self) -> int:
        """An upper bound of the turns of a trajectory."""

    @property
    def max_answers(self) -> int:
        """An upper bound of the answers a trajectory gives. By default every turn may give one."""
        return self.max_turns

    def with_answers(self, answers: int) -> Self:
        """The same protocol, stopping after `answers` answers (at least 1). A protocol that gives one answer is
        returned as it is."""
        return self

    def prolonged(self, factor: float) -> Self:
        """The same protocol with `factor` times the answers after the first and the token budget, to evaluate beyond
        training."""
        longer = self.with_answers(1 + round(factor * (self.max_answers - 1)))
        return longer.model_copy(update={"token_budget": round(factor * self.token_budget)})

    def persistent(self, rounds: int) -> Self | None:
        """The same protocol under budget forcing (s1, 2501.19393): the first `rounds` times that it would come to its
        end, the model is asked to go on. None, the default: there is no such form of it."""
        return None

    def cuts(self, text: str) -> Sequence[int]:
        """Where to cut a completion into several turns, as increasing offsets into `text`, for protocols in which the
        model writes one free stream. By default nowhere: a completion is a turn. All places are wanted: where they are
        more than `turns_left` allows, neighbouring pieces become one turn (see `merged`)."""
        return ()

    def turns_left(self, turns: Sequence[Turn]) -> int:
        """An upper bound of the turns that the completion after `turns` is cut into."""
        return self.max_turns - len(turns)

    def metrics(self, trajectory: Trajectory) -> Mapping[str, float | Share]:
        """Numbers of its own about a graded trajectory, by snake_case names. Every evaluation reports their means over
        the trajectories that have them, with intervals, under the protocol's names."""
        return {}

    def moves(self, trajectory: Trajectory) -> Mapping[str, Sequence[range]]:
        """Turns that are taken together as one move, by the move's name. Every evaluation reports what moves do to the
        meta-prover's value: V after the last turn − V before the first."""
        return {}


def merged(cuts: Sequence[int], most: int) -> list[int]:
    """The cuts that are left when neighbouring pieces are merged into `most` turns of as many pieces each, give or take
    one: a completion is cut after all of it was sampled, so its cuts are known."""
    pieces = len(cuts) + 1
    if pieces <= most:
        return list(cuts)
    return [cuts[turn * pieces // most - 1] for turn in range(1, most)]


def standing_steps(turns: Sequence[Turn]) -> tuple[str, ...]:
    """The steps that stand after the turns, in order."""
    return tuple(text for _, _, text in standing(turns))


def standing(turns: Sequence[Turn]) -> list[tuple[int, int, str]]:
    """The steps of the solution that stands, each with its turn and its place among that turn's steps (both from 0): a
    turn that names a target discards the steps after it, a turn that writes steps appends them."""
    steps: list[tuple[int, int, str]] = []
    for j, turn in enumerate(turns):
        if turn.parsed is None:
            continue
        if turn.parsed.verdict is None and turn.parsed.step is not None:
            steps = steps[: turn.parsed.step]
        steps += [(j, place, text) for place, text in enumerate(turn.parsed.steps)]
    return steps


class Episode:
    """One trajectory under way, from the turns of `start` on (none: from the problem). `spec` is the next turn's, None
    once `stop` is set."""

    def __init__(self, protocol: EpisodeProtocol, start: Trajectory) -> None:
        self.protocol, self.problem, self.prompt_ids = protocol, start.problem, start.prompt_ids
        self.turns = list(start.turns)
        self.given = len(self.turns)
        self.stop: StopReason | None = None
        self.spec: TurnSpec | None = None
        self._ask()

    @property
    def budget_left(self) -> int:
        """Tokens that may still be sampled."""
        return self.protocol.token_budget - sum(len(t.completion.token_ids) for t in self.turns)

    def prefix_ids(self, window: int | None = None) -> TokenIds:
        """Token ids of the prompt and the turns so far, or only the last `window` turns."""
        first = 0 if window is None else max(0, len(self.turns) - window)
        return joined_ids(self.prompt_ids, self.turns[first:])

    def advance(self, text: str | None, completion: Completion, instruction_ids: TokenIds = ()) -> Turn:
        """Take the model's turn for `spec`; `text` is None if the action was no text. Never raises for anything the
        model wrote. A completion longer than `spec.max_new_tokens` is the caller's error (ValueError)."""
        if self.spec is None:
            raise RuntimeError(f"the trajectory of {self.problem.id} has ended ({self.stop})")
        spec, parsed, violation, length = self.spec, None, None, len(completion.token_ids)
        if length > spec.max_new_tokens:
            raise ValueError(f"{length} tokens for a turn of at most {spec.max_new_tokens}")
        cut_off = completion.finish is Finish.LENGTH
        # Cut off by the budget, or (before the turn's own limit) by the end of the model's context.
        out_of_budget = cut_off and (length == self.budget_left or length < spec.max_new_tokens)
        if not out_of_budget:
            try:
                if text is None:
                    raise ProtocolViolation("not_text", "the action is neither text nor a completion")
                if cut_off:
                    raise ProtocolViolation("turn_too_long", f"no end within {spec.max_new_tokens} tokens")
                goes_on = completion.finish is Finish.CUT
                parse = self.protocol.parse_piece if goes_on else self.protocol.parse
                parsed = parse(spec.phase, text, self.turns)
            except ProtocolViolation as error:
                violation = error.name
        turn = Turn(spec, text or "", parsed, instruction_ids, completion, violation)
        self.turns.append(turn)
        if parsed is None:
            self.end(StopReason.BUDGET if out_of_budget else StopReason.VIOLATION)
            return turn
        self._ask()
        if self.protocol.one_message and self.spec is not None and completion.finish is Finish.STOP:
            self.turns[-1] = turn = replace(turn, completion=reopened(completion, Finish.FORCED))
            self._ask()  # a token is left more
        return turn

    def end(self, reason: StopReason) -> None:
        """Stop the trajectory here (e.g. the model's context is full)."""
        self.spec, self.stop = None, reason

    def trajectory(self) -> Trajectory:
        """The trajectory so far, not graded."""
        answer = None if self.stop is StopReason.VIOLATION else self.protocol.final_answer(self.turns)
        return Trajectory(self.problem, self.prompt_ids, tuple(self.turns), self.stop, answer, given=self.given)

    def _ask(self) -> None:
        """Set `spec` to the next turn, its length capped by the budget, or stop."""
        following = self.protocol.next_turn(self.problem, self.turns)
        if isinstance(following, StopReason):
            self.end(following)
        elif self.budget_left <= 0:
            self.end(StopReason.BUDGET)
        else:
            cap = min(following.max_new_tokens, self.budget_left)
            self.spec = TurnSpec(following.phase, cap, following.fields)


def reopened(completion: Completion, finish: Finish) -> Completion:
    """A completion that has ended its message, without the stop id: the message can go on."""
    return Completion(completion.token_ids[:-1], completion.logprobs[:-1], finish)


def graded(trajectory: Trajectory, verdict_of: Callable[[str | None], str]) -> Trajectory:
    """The trajectory with the grade of every answer given, the verdict on the final one, and the outcome R: 1 if an
    answer stands, is right, and the protocol was kept."""
    turns = tuple(
        turn
        if turn.parsed is None or turn.parsed.answer is None
        else replace(turn, right=verdict_of(turn.parsed.answer) == "right")
        for turn in trajectory.turns
    )
    verdict = str(verdict_of(trajectory.answer))
    kept = trajectory.answer is not None and trajectory.stop is not StopReason.VIOLATION
    return replace(trajectory, turns=turns, verdict=verdict, outcome=float(kept and verdict == "right"))
