"""Environments of verifiers (0.4, its ``v1``): a taskset, the environment that plays it, and the rewards of its tasks.

What is mapped: text alone, one agent, tools and sandboxes none. The agent's side of the conversation is ours: where
their environment waits for a reply that is not there yet, its play is left, and what it said is the next instruction.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.configs.agent import agent_config_fields
from verifiers.v1.env import Env
from verifiers.v1.graph import MessageNode
from verifiers.v1.trace import AgentInfo, TraceTask
from verifiers.v1.types import content_text
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

from backtrack_mrt.errors import UserError
from backtrack_mrt.foreign.source import MOST_TASKS, Source

_THREAD = ThreadPoolExecutor(1, "verifiers")  # for where a loop is running already, as in a notebook


class Verifiers(Source):
    """A taskset by the id under which verifiers knows it: an installed package."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        inner = name.partition(":")[2]
        try:
            self._env = load_environment(resolve_env_config({"taskset": {"id": inner}}))
            self._tasks = list(islice(self._env.taskset, MOST_TASKS))
        except Exception as error:  # whatever a third party's environment does where it is loaded
            reason = f"verifiers cannot load it: {type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError("env", name, reason, "Install its package, and its data.") from error
        if not self._tasks:
            raise UserError("env", name, "it has no tasks", "Take another one.")
        if (why := _unmapped(self._env, self._tasks[0])) is not None:
            remedy = "Only text environments with one agent, without tools and sandboxes, can be mapped."
            raise UserError("env", name, why, remedy)

    def tasks(self) -> int:
        return len(self._tasks)

    def _play(self, task: int, replies: Sequence[str]) -> tuple[str | None, float]:
        playing = self._played(self._tasks[task], replies)
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # here, and in no thread: rewards may need signals, as math-verify's time limits do
            return asyncio.run(playing)
        return _THREAD.submit(asyncio.run, playing).result()

    async def _played(self, task: Any, replies: Sequence[str]) -> tuple[str | None, float]:
        seat = _Seat(replies)
        (role,) = agent_config_fields(self._env.config)
        said: str | None = None
        try:
            await self._env.run(task, type("Agents", (), {role: seat})())
        except _WaitingError as waiting:
            said = waiting.said
            await task.score(seat.trace)  # what the conversation so far is worth
        return said, seat.trace.reward if seat.trace is not None and replies else 0.0


class _WaitingError(BaseException):
    """Not an Exception: their code must not catch it."""

    def __init__(self, said: str) -> None:
        self.said = said


class _Seat:
    """What stands in for their agent: it gives the replies that there are."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._replies = iter(replies)
        self.trace: Any = None

    @asynccontextmanager
    async def interaction(self, task: Any, **_: Any) -> AsyncIterator[_Seat]:
        agent = AgentInfo(config=vf.AgentConfig())
        self.trace = vf.Trace(task=TraceTask(type=type(task).__name__, data=task.data), agent=agent)
        self._opening = _opening(task.data)
        yield self
        await task.score(self.trace)

    async def run(self, task: Any, **_: Any) -> Any:
        async with self.interaction(task) as interaction:
            await interaction.turn()
        return self.trace

    async def turn(self, message: str | None = None) -> vf.Segment:
        said = "\n\n".join(filter(None, [self._opening, message]))
        if said:
            self._say(vf.UserMessage(content=said))
        self._opening = ""
        reply = next(self._replies, None)
        if reply is None:
            raise _WaitingError(said)
        answer = vf.AssistantMessage(content=reply)
        self._say(answer, sampled=True)
        return vf.Segment(messages=[answer])

    def _say(self, message: Any, sampled: bool = False) -> None:
        nodes = self.trace.nodes
        nodes.append(MessageNode(parent=len(nodes) - 1 if nodes else None, message=message, sampled=sampled))


def _opening(data: Any) -> str:
    """System prompt and prompt in one text: a protocol of ours has its own system prompt."""
    parts = [data.system_prompt, data.prompt if isinstance(data.prompt, str) else None]
    if isinstance(data.prompt, list):
        parts += [content_text(message.content) for message in data.prompt]
    return "\n\n".join(part for part in parts if part)


def _unmapped(env: Any, task: Any) -> str | None:
    """What of an environment has no counterpart here, in words; None if all of it has."""
    kind, base, data = type(task), vf.Task, task.data
    if len(roles := agent_config_fields(env.config)) > 1:
        return f"it has several agents ({', '.join(roles)})"
    if kind.toolsets(task.config) or type(env.taskset).toolsets(env.taskset.config):
        return "it has tools"
    if kind.NEEDS_CONTAINER or data.image:
        return "it needs a container"
    for hook in ("setup", "finalize"):
        if getattr(kind, hook) is not getattr(base, hook):
            return f"its tasks have a {hook} in a runtime"
    if type(env).finalize is not Env.finalize:
        return "it scores by whole episodes (finalize)"
    if task.plugged_judges():
        return "it is judged by a model"
    for reward in task.hooks("reward"):
        wanted = inspect.signature(reward).parameters.get("runtime")
        if wanted is not None and wanted.default is inspect.Parameter.empty:
            return f"its reward {reward.__name__} needs a runtime"
    if isinstance(data.prompt, list) and any(m.role != "user" or not isinstance(m.content, str) for m in data.prompt):
        return "its prompts are more than texts of the user"
    return None
