"""One trajectory under way: whose turn it is, what a violation ends, how much of the token budget is left.

The Gymnasium environment and the batched rollout both step `Episode`, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backtrack_mrt.grading import Grade
from backtrack_mrt.hooks import of_its_kind
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import (
    Completion,
    Finish,
    Problem,
    StopReason,
    TokenIds,
    Trajectory,
    Turn,
    TurnSpec,
    joined_ids,
)


class Episode:
    """One trajectory under way: from a problem, or from the turns of a trajectory on. `spec` is the next turn's, None
    once `stop` is set."""

    def __init__(self, protocol: EpisodeProtocol, start: Problem | Trajectory) -> None:
        start = Trajectory(start) if isinstance(start, Problem) else start
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
                parsed = of_its_kind("env", self.protocol, "parse", parse(spec.phase, text, self.turns))
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
        following = of_its_kind("env", self.protocol, "next_turn", following)
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


def graded(trajectory: Trajectory, grade_of: Callable[[str | None], Grade]) -> Trajectory:
    """The trajectory with the reward of every answer given, the verdict on the final one, and the outcome R: its
    reward, if an answer stands and the protocol was kept."""
    turns = tuple(
        turn if turn.answer is None else replace(turn, reward=grade_of(turn.answer).reward) for turn in trajectory.turns
    )
    final = grade_of(trajectory.answer)
    kept = trajectory.answer is not None and trajectory.stop is not StopReason.VIOLATION
    return replace(trajectory, turns=turns, verdict=str(final.verdict), outcome=final.reward if kept else 0.0)
