"""Protocol and grader of an environment of another library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from pydantic import Field

from backtrack_mrt.errors import UserError
from backtrack_mrt.foreign.source import EnvironmentFailed, source
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading.markers import MESSAGE, Marker
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.types import Parsed, Problem, StopReason, Turn, TurnSpec

REPLY = "reply"


class ForeignProtocol(EpisodeProtocol):
    """The environment speaks, the model replies, until it ends. A turn's answer is the conversation up to it (its
    replies, as JSON): what the environment would pay if it ended there. Where their code raises, the conversation is
    over and earns nothing."""

    environment: ClassVar[str]
    phases: ClassVar[Mapping[str, str]] = {REPLY: "the model replies to the environment"}
    max_replies: int = Field(8, gt=0, description="replies of a trajectory, at most")
    reply_tokens: int = Field(512, gt=0, description="longest reply, in tokens")

    @property
    def max_turns(self) -> int:
        return self.max_replies

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        if len(turns) >= self.max_replies:
            return StopReason.TURN_LIMIT
        said: str | None = ""  # the question is what it says first
        if turns:
            try:
                said = source(self.environment).play(_task(problem), [turn.text for turn in turns]).said
            except EnvironmentFailed:
                said = None
        return StopReason.FINISHED if said is None else TurnSpec(REPLY, self.reply_tokens, {"said": said})

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        return Parsed(answer=json.dumps([*(turn.text for turn in turns), text], ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Standing(Problem):
    """A problem after some replies: what follows is the next one."""

    replies: tuple[str, ...] = ()


class ForeignGrader(Grader):
    """What the environment pays for a conversation, from 0 to 1. A forced answer is one more reply, the last one."""

    environment: ClassVar[str]
    marker: ClassVar[Marker] = MESSAGE
    golds_are_answers: ClassVar[bool] = False

    def judge(self, problem: Problem, answer: str) -> float:
        replies = [*problem.replies, answer] if isinstance(problem, Standing) else json.loads(answer)
        return source(self.environment).play(_task(problem), replies).reward

    def standing(self, problem: Problem, turns: Sequence[Turn]) -> Problem:
        replies = tuple(turn.text for turn in turns)
        return Standing(problem.id, problem.question, problem.answer, problem.source, replies=replies)


def _task(problem: Problem) -> int:
    """The number of the task that the problem is; of a stranger (protocols are rehearsed with one) the first."""
    number = problem.id.rpartition("/")[2]
    return int(number) if problem.source and problem.id == f"{problem.source}/{number}" and number.isdigit() else 0


@cache
def plugin(name: str, base: type) -> type:
    """The protocol or the grader of the environment called ``LIBRARY:NAME``. Raises UserError for one that cannot be
    had or mapped."""
    source(name)
    kind = ForeignProtocol if base is EpisodeProtocol else ForeignGrader if base is Grader else None
    if kind is None:
        raise UserError("algo", name, "environments of other libraries are protocols and graders", "Name an algorithm.")
    told = {"environment": name, "summary": f"the environment {name}", "__module__": __name__}
    return type(kind.__name__, (kind,), told)
