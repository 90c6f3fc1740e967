"""Our protocols as an environment of verifiers (0.4, its ``v1``), for prime-rl and whoever else plays those.

An environment of theirs is an installed module of one's own that exports two classes, say ``my_backtrack.py``::

    from backtrack_mrt.verifiers_env import EpisodesEnv, EpisodesTaskset

    __all__ = ["EpisodesEnv", "EpisodesTaskset"]

Then ``vf-eval my_backtrack`` plays it. Every turn is a model call of its own in the trace, so a credit per turn has
where to go.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import verifiers.v1 as vf
from pydantic import Field

from backtrack_mrt.config import Config
from backtrack_mrt.config.extending import read_layers
from backtrack_mrt.config.files import DEFAULT_CONFIG, Layer, resolve
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import ProtocolViolation
from backtrack_mrt.rollouts.prompts import Prompts, load_prompts
from backtrack_mrt.types import Completion, Finish, Problem, Turn, TurnSpec


class EpisodesConfig(vf.TasksetConfig):
    """Which protocol, prompts, grader and problems: as in our YAML files."""

    files: list[str] = Field([DEFAULT_CONFIG])
    settings: dict[str, Any] = Field({})
    split: Literal["train", "eval"] = "train"


class EpisodeData(vf.TaskData):
    """A problem of ours."""

    question: str
    answer: str
    source: str

    @property
    def problem(self) -> Problem:
        return Problem(str(self.id), self.question, self.answer, self.source)


class EpisodeTask(vf.Task[EpisodeData]):
    """Scored by the environment, when the conversation has ended."""


class EpisodesTaskset(vf.Taskset[EpisodeTask, EpisodesConfig]):
    """The problems of a config, each with the first turn's prompt."""

    @cached_property
    def episodes(self) -> Config:
        """Our config. Raises UserError for whatever is wrong in it, and for a protocol that is a single message."""
        layers = [layer for file in self.config.files for layer in read_layers(file)]
        config = resolve([*layers, Layer.of(self.config.settings, "settings")])
        if config.protocol.one_message:
            reason = "its turns are cut out of a single message, which they do not know"
            raise UserError("env", config.env, reason, "Take one of several messages: backtrack, retry, single.")
        return config

    @cached_property
    def prompts(self) -> Prompts:
        return load_prompts(self.episodes.env, self.episodes.prompts).marked(self.episodes.protocol.marked)

    def load(self) -> Iterator[EpisodeTask]:
        config = self.episodes
        sets = load_problem_sets(config.data, grader=config.grading)
        for problem in sets.train if self.config.split == "train" else sets.eval:
            first = config.protocol.next_turn(problem, ())
            assert isinstance(first, TurnSpec)
            asked = self.prompts.opening(first.phase, problem.question, first.fields)
            data = {"question": problem.question, "answer": problem.answer, "source": problem.source}
            yield EpisodeTask(EpisodeData(id=problem.id, prompt=asked, system_prompt=self.prompts.system, **data))


class EpisodesEnvConfig(vf.EnvConfig):
    """One agent, the model."""

    player: vf.AgentConfig = vf.AgentConfig()


class EpisodesEnv(vf.Env[EpisodesEnvConfig]):
    """Plays our protocol with their agent, and pays what our grader pays for the answer that stands."""

    async def run(self, task: Any, agents: Any) -> None:
        taskset: EpisodesTaskset = self.taskset
        protocol, problem = taskset.episodes.protocol, task.data.problem
        turns: list[Turn] = []
        violation = None
        async with agents.player.interaction(task) as interaction:
            spec, segment = protocol.next_turn(problem, ()), await interaction.turn()
            while isinstance(spec, TurnSpec) and not segment.terminated:
                text = segment.last_reply
                try:
                    parsed = protocol.parse(spec.phase, text, turns)
                except ProtocolViolation as error:
                    violation = error.name
                    break
                turns.append(Turn(spec, text, parsed, (), Completion((), (), Finish.STOP)))
                spec = protocol.next_turn(problem, turns)
                if isinstance(spec, TurnSpec):
                    segment = await interaction.turn(taskset.prompts.render(spec.phase, spec.fields))
        answer = None if violation else protocol.final_answer(turns)
        grade = taskset.episodes.grading.grade(problem, answer)
        trace = interaction.trace
        trace.record_reward("outcome", grade.reward if answer is not None else 0.0)
        trace.record_metrics({"turns": float(len(turns)), "violation": float(violation is not None)})
        trace.info["verdict"] = violation or str(grade.verdict)
