"""One trajectory, move by move, by hand or by a model: the rules behind `backtrack-mrt play`.

A turn that a person types is a completion like any other: it goes through the batched rollout, with the person in the
engine's place. What is played by hand is therefore what a model would have got for the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.policy.engine import Sampler
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation, standing_steps
from backtrack_mrt.rollouts.chat import ChatFormat
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.rollouts.rollout import grade, rollout, trajectory_seeds
from backtrack_mrt.runs.trace import visible
from backtrack_mrt.types import (
    Completion,
    Finish,
    Problem,
    Request,
    Sampling,
    Scored,
    StopReason,
    TokenIds,
    Trajectory,
    TurnSpec,
)


@dataclass
class Typed:
    """The engine of one turn that a person types. No policy sampled it: its log-probabilities are NaN."""

    ids: TokenIds
    context_length: int

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Sampler.generate`; a text that is too long is cut off where a model would have been."""
        (request,) = requests
        ids = self.ids[: request.max_new_tokens]
        finish = Finish.STOP if len(ids) == len(self.ids) else Finish.LENGTH
        return [Completion(ids, (math.nan,) * len(ids), finish)]


class Game:
    """One problem being solved.

    model: what samples and scores, None to play by hand alone; then there are no values. `moves` holds what there was
    after each move, the latest one last: a trajectory, with values if there are any, graded once it has ended.
    """

    def __init__(
        self,
        problem: Problem,
        protocol: EpisodeProtocol,
        dialogue: Dialogue,
        grader: Grader,
        model: Collector | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.protocol, self.dialogue, self.grader, self.model = protocol, dialogue, grader, model
        self.sampling = Sampling(temperature, stop_ids=dialogue.chat.stop_ids)
        self.seed, self.drawn = seed, 0
        first = protocol.next_turn(problem, ())
        assert isinstance(first, TurnSpec)  # every protocol asks for a first turn
        self.moves = [self._scored(Trajectory(problem, dialogue.opening(problem, first)))]

    @property
    def scored(self) -> Scored:
        return self.moves[-1]

    @property
    def trajectory(self) -> Trajectory:
        return self.scored.trajectory

    @property
    def spec(self) -> TurnSpec | None:
        """What the protocol asks for now; None once the trajectory has ended."""
        return None if self.trajectory.stop is not None else Episode(self.protocol, self.trajectory).spec

    @property
    def budget_left(self) -> int:
        """Tokens that may still be sampled."""
        return self.protocol.token_budget - self.trajectory.sampled_tokens

    @property
    def asked_ids(self) -> TokenIds:
        """The tokens that the model sees now and had not seen before: the prompt, or the next instruction."""
        if not self.trajectory.turns:
            return self.trajectory.prompt_ids
        return self.dialogue.following(self.spec, self.trajectory.turns[-1].completion) if self.spec else ()

    def type(self, text: str) -> None:
        """Take the next turn by hand."""
        chat, prompt = self.dialogue.chat, len(self.trajectory.prompt_ids)
        most = self.model.engine.context_length if self.model else prompt + (1 << 20)  # nothing ends but the budget
        self._move(Typed((*chat.encode(text), chat.eos_id), most), seed=0)

    def sample(self) -> None:
        """Let the model take the next turn. After an `undo` it draws anew."""
        assert self.model is not None
        (seed,) = trajectory_seeds(self.seed, self.drawn, 1)
        self._move(self.model.engine, seed)

    @property
    def seen_ids(self) -> TokenIds:
        """All tokens that the model sees."""
        asked = self.asked_ids if self.trajectory.turns else ()
        return self.trajectory.token_ids + asked

    def undo(self) -> bool:
        """Take the latest move back. Returns False if there is none."""
        if len(self.moves) == 1:
            return False
        self.moves.pop()
        self.drawn += 1
        return True

    def why(self) -> str:
        """Why the last turn broke the protocol, in the parser's words; "" where it did not."""
        if self.trajectory.stop is not StopReason.VIOLATION:
            return ""
        *before, last = self.trajectory.turns
        try:
            self.protocol.parse(last.spec.phase, last.text, before)
        except ProtocolViolation as error:
            if error.name == last.violation:
                return str(error)
        return f"no end within {len(last.completion.token_ids)} tokens"

    def standing(self) -> tuple[str, ...]:
        """The steps of the solution that stands."""
        return standing_steps(self.trajectory.turns)

    def _move(self, sampler: Sampler, seed: int) -> None:
        reserve = self.model.prover.reserve if self.model and self.model.prover else None
        (trajectory,) = rollout(
            [self.trajectory],
            [seed],
            self.protocol,
            self.dialogue,
            sampler,
            self.sampling,
            most_turns=1,
            reserve=reserve,
        )
        self.moves.append(self._scored(replace(trajectory, given=0)))

    def _scored(self, trajectory: Trajectory) -> Scored:
        if trajectory.stop is not None:
            (trajectory,) = grade([trajectory], self.grader)
        if self.model is None or self.model.prover is None:
            return Scored(trajectory)
        return Scored(trajectory, self.model.prover.values([trajectory])[0])


def shown_tokens(ids: TokenIds, chat: ChatFormat, numbered: bool = False) -> str:
    """Token ids as text: special tokens stand in ⟦⟧, so that a text that only looks like one can be told apart.
    numbered: every token by itself, behind its id. Nothing in it can steer a terminal."""
    special = set(chat.tokenizer.all_special_ids)

    def shown(token: int) -> str:
        piece = _decoded([token], chat)
        return f"⟦{piece}⟧" if token in special else repr(piece)

    if numbered:
        return "\n".join(f"{token} {shown(token)}" for token in ids)
    runs = groupby(ids, special.__contains__)
    return "".join("".join(map(shown, run)) if of_special else _decoded([*run], chat) for of_special, run in runs)


def _decoded(ids: Sequence[int], chat: ChatFormat) -> str:
    text = chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return visible(str(text))
