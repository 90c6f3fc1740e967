"""The environment's side of a trajectory in tokens: prompts written into a chat, and the meta-prover's question.

The Gymnasium environment and the batched rollout both speak through `Dialogue`, so their tokens cannot differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from backtrack_mrt.grading.markers import Marker
from backtrack_mrt.rollouts.chat import Chat
from backtrack_mrt.rollouts.episode import reopened
from backtrack_mrt.rollouts.prompts import CLOSE, FORCE, FORCE_PREFIX, HINT, QUESTION, Prompts
from backtrack_mrt.types import Completion, Finish, Problem, TokenIds, Trajectory, TurnSpec

_CLOSING_TAG = re.compile(r"</(\w+)>")


def closing_of_thought(close: str, begun: str, said: str) -> str:
    """What ends a thought in a message that the template has `begun` and the model has gone on with to say `said`: the
    text `close`, without its tag (`</think>`) unless a thought is open."""
    tag = _CLOSING_TAG.search(close)
    if tag is None or (begun + said).count(f"<{tag[1]}>") > (begun + said).count(tag[0]):
        return close
    untagged = close[: tag.start()].rstrip() + close[tag.end() :]
    return untagged if said else untagged.lstrip()


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The prompts of a protocol, spoken in the chat format of a model. Every method is a pure function."""

    chat: Chat
    prompts: Prompts

    def opening(self, problem: Problem, spec: TurnSpec) -> TokenIds:
        """The prompt c_0: the question and the first turn's instruction, up to the start of the first reply."""
        return self.chat.opening(self.prompts.opening(spec.phase, problem.question, spec.fields))

    def hinted(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory's problem alone, its prompt ending in the gold answer as a hint (`hint.md`)."""
        problem, first = trajectory.problem, trajectory.turns[0].spec
        instruction = self.prompts.render(first.phase, first.fields) + self.prompts.render(
            HINT, {"answer": problem.answer}
        )
        fields = {"question": problem.question, "instruction": instruction}
        return Trajectory(problem, self.chat.opening(self.prompts.render(QUESTION, fields)))

    def instruction(self, spec: TurnSpec, previous: Completion) -> str:
        """What is said before the next turn: nothing where the model goes on by itself after the `previous` one."""
        return "" if previous.finish is Finish.CUT else self.prompts.render(spec.phase, spec.fields)

    def following(self, spec: TurnSpec, previous: Completion) -> TokenIds:
        """Instruction tokens (I,) of the next turn: from the end of the `previous` completion to the next reply. Where
        the model is forced to go on, the instruction is put into its own message."""
        if previous.finish is Finish.CUT:
            return ()
        if previous.finish is Finish.FORCED:
            return self.chat.encode(self.instruction(spec, previous))
        return self.chat.following(self.instruction(spec, previous), after=previous)

    def forced(self, trajectory: Trajectory, turns: int) -> TokenIds:
        """The prefix c_j (j = `turns`), the question for the answer *now*, and the reply begun up to the answer.
        For j = 0 that question takes the place of the first turn's instruction.

        A style with `close.md` does not ask while the model's message is under way: that text closes its thought, if
        one is open, and the answer is begun in the same message. Once the model has ended its message, it is asked
        like any other, if the chat goes on after it.
        """
        start = self.unanswered(trajectory.branch(turns))
        previous = start.turns[-1].completion if start.turns else None
        if CLOSE in self.prompts.texts and (previous is None or previous.finish is not Finish.STOP):
            said = "".join(turn.text for turn in start.turns)
            close = closing_of_thought(self.prompts.texts[CLOSE], self.chat.begun, said)
            return start.token_ids + self.chat.encode(close + self.force_prefix)
        if previous is None:
            asked = self.chat.opening(self.prompts.opening(FORCE, trajectory.problem.question, {}))
        else:
            asked = start.token_ids + self.chat.following(self.prompts.render(FORCE, {}), after=previous)
        return asked + self.chat.encode(self.force_prefix)

    @property
    def force_tokens(self) -> int:
        """The most tokens that `forced` puts behind a trajectory."""
        closed = self.chat.encode(self.prompts.texts.get(CLOSE, "") + self.force_prefix)
        if not self.chat.follows:
            return len(closed)
        asked = self.chat.following(self.prompts.render(FORCE, {}), after=Completion((), (), Finish.LENGTH))
        return max(len(closed), len(asked + self.chat.encode(self.force_prefix)))

    @property
    def instruction_tokens(self) -> int:
        """The most tokens that `following` puts before a turn, what fills placeholders aside. One free stream is asked
        once."""
        if CLOSE in self.prompts.texts or not self.chat.follows:
            return 0
        texts = (self.prompts.texts[name] for name in self.prompts.phases)
        return max(len(self.chat.following(text, after=Completion((), (), Finish.LENGTH))) for text in texts)

    def unanswered(self, start: Trajectory) -> Trajectory:
        """The trajectory from which a forced answer goes on: in a chat without a second message, a message that the
        model has ended is opened again (its last token is taken off)."""
        if self.chat.follows or not start.turns or start.turns[-1].completion.finish is not Finish.STOP:
            return start
        opened = reopened(start.turns[-1].completion, Finish.CUT)
        return replace(start, turns=(*start.turns[:-1], replace(start.turns[-1], completion=opened)))

    @property
    def force_prefix(self) -> str:
        """How the forced answer is begun for the model; it ends where the answer is to stand."""
        return self.prompts.texts[FORCE_PREFIX]

    @property
    def marker(self) -> Marker:
        """How answers are marked."""
        return self.prompts.marker

    def is_complete(self, ids: TokenIds) -> bool:
        """Whether a completion of `forced` has ended the answer that was begun for it."""
        ended = self.marker.ended_by_message and ids[-1:] != () and ids[-1] in self.chat.stop_ids
        return ended or self.marker.end_in(self.chat.decode(ids)) is not None

    def forced_answer(self, ids: TokenIds) -> str | None:
        """The answer that a completion of `forced` gives: the one begun, or the last one marked where none was begun;
        None without an answer."""
        text = self.chat.decode(ids)
        if not self.prompts.begins_answer:
            return self.marker.find(self.force_prefix + text)
        return self.marker.find(self.force_prefix + text[: self.marker.end_in(text)]) if self.is_complete(ids) else None

    def answer(self, gold: str) -> TokenIds:
        """The continuation of `forced` that answers `gold`: its tokens and what ends an answer."""
        return self.chat.encode(self.marker.lead + gold + self.marker.closing)
