"""An environment of another library, by its name ``LIBRARY:NAME``: its tasks, and what it says to replies.

Ours are stateless: the same turns always lead to the same next turn. Theirs have state, so they are played again from
the start for every turn, with the replies so far; what was played is remembered.
"""

from __future__ import annotations

import importlib
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.types import Problem

LIBRARIES = {"verifiers": "Verifiers", "openenv": "OpenEnv"}  # and their classes, each in a module of its name
MOST_TASKS = 10_000  # that are read of one environment
_REMEMBERED = 65_536  # plays
JUDGED = "(judged by the environment)"  # where a problem has its gold


class EnvironmentFailed(Exception):
    """Their code raised for what a model wrote."""


@dataclass(frozen=True, slots=True)
class Played:
    """Where an environment stands after some replies: what it `said` last, None once it has ended, and the reward that
    its rules give the conversation so far, from 0 to 1."""

    said: str | None
    reward: float


class Source(ABC):
    """One environment. name: ``LIBRARY:NAME``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._told = False

    @abstractmethod
    def tasks(self) -> int:
        """How many tasks it has, at most `MOST_TASKS`."""

    @abstractmethod
    def _play(self, task: int, replies: Sequence[str]) -> tuple[str | None, float]:
        """Play task number `task` from the start; see `Played`, but for the range of the reward."""

    def play(self, task: int, replies: Sequence[str]) -> Played:
        """Where task number `task` stands after the replies. Raises EnvironmentFailed."""
        return self._remembered(task, tuple(replies))

    def problem(self, task: int) -> Problem:
        """Task number `task`: its question is what the environment says first."""
        said = self.play(task, ()).said
        if not said:
            raise UserError("env", self.name, f"its task {task} begins without a word", "Take one that asks first.")
        return Problem(f"{self.name}/{task}", said, JUDGED, source=self.name)

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019 - sources live as long as the process, see `source`
    def _remembered(self, task: int, replies: tuple[str, ...]) -> Played:
        state = random.getstate()  # games seed the process's generator
        try:
            said, reward = self._play(task, replies)
        except UserError:
            raise
        except Exception as error:
            raise EnvironmentFailed(f"{self.name} fails: {type(error).__name__}: {error}") from error
        finally:
            random.setstate(state)
        if not 0 <= reward <= 1 and not self._told:
            self._told = True
            warnings.warn(f"{self.name} gives a reward of {reward:g}: outside 0 … 1 it is cut off.", stacklevel=2)
        return Played(said, min(max(float(reward), 0.0), 1.0))


@cache
def source(name: str) -> Source:
    """The environment called ``LIBRARY:NAME``. Raises UserError for one that cannot be had, or cannot be mapped."""
    library, _, inner = name.partition(":")
    if library not in LIBRARIES or not inner:
        remedy = f"Write LIBRARY:NAME. {did_you_mean(library, LIBRARIES)}"
        raise UserError("env", name, "no environment of another library", remedy)
    try:
        found = getattr(importlib.import_module(f"backtrack_mrt.foreign.{library}"), LIBRARIES[library])
    except ImportError as error:
        remedy = f"pip install 'backtrack-mrt[{library}]'."
        raise UserError("env", name, f"{library} is not installed ({error})", remedy) from error
    loaded: Source = found(name)
    return loaded
