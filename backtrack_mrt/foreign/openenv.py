"""Environments of OpenEnv, in this process: ``openenv:package.module:Class``.

What is mapped: an `Environment` whose action has one text that must be given. A task is a seed of `reset`; what is seen
is the observation's text, or all of it as JSON where it has several fields; rewards of the steps are added up.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any, get_args

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation

from backtrack_mrt.errors import UserError
from backtrack_mrt.foreign.source import MOST_TASKS, Source

_REMEDY = "Only environments whose action is one text can be mapped."


class OpenEnv(Source):
    """An `Environment` class by its import path."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        place, _, kind = name.partition(":")[2].partition(":")
        try:
            self._class = getattr(importlib.import_module(place), kind)
            fits = issubclass(self._class, Environment)
        except Exception as error:  # whatever a third party's module does where it is imported
            reason = f"it cannot be imported: {type(error).__name__}: {error}"
            raise UserError("env", name, reason, "Write openenv:package.module:Class.") from error
        if not fits:
            raise UserError("env", name, f"{kind} is no OpenEnv Environment", "Write openenv:package.module:Class.")
        self._action, self._field = self._texts()

    def tasks(self) -> int:
        return MOST_TASKS

    def _play(self, task: int, replies: Sequence[str]) -> tuple[str | None, float]:
        environment: Any = self._class()
        try:
            seen, total = environment.reset(seed=task), 0.0
            for reply in replies:
                if seen.done:
                    break
                seen = environment.step(self._action(**{self._field: reply}))
                total += float(seen.reward or 0.0)
            return None if seen.done else _text(seen), total
        finally:
            environment.close()

    def _texts(self) -> tuple[type[Action], str]:
        """The class of its actions, and the field of the text. Raises UserError where there is no such text."""
        bases = [base for cls in self._class.__mro__ for base in getattr(cls, "__orig_bases__", ())]
        kinds = [kind for base in bases for kind in get_args(base) if isinstance(kind, type)]
        action: Any = next((kind for kind in kinds if issubclass(kind, Action)), None)
        if action is None:
            raise UserError("env", self.name, "it does not say what its actions are", _REMEDY)
        wanted = {name: field.annotation for name, field in action.model_fields.items() if field.is_required()}
        if len(wanted) != 1 or next(iter(wanted.values())) is not str:
            told = ", ".join(wanted) or "none"
            raise UserError("env", self.name, f"an action of its kind must be given: {told}", _REMEDY)
        return action, next(iter(wanted))


def _text(seen: Observation) -> str:
    shown = seen.model_dump(mode="json", exclude={"done", "reward", "metadata"}, exclude_none=True)
    texts = list(shown.values())
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else json.dumps(shown, ensure_ascii=False)
