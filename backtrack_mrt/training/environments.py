"""Other people's episodes, by TRL's `environment_factory` or `rollout_func`: what goes wrong in one is told, with its
place.

TRL tells an exception of a tool to the model, and nobody else; what `reset`, `get_reward` and a `rollout_func` give it
takes as it is.
"""

from __future__ import annotations

import functools
import inspect
import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from backtrack_mrt.errors import UserError, in_words, short
from backtrack_mrt.hooks import uncallable

FIELD, ROLLOUTS = "environment_factory", "rollout_func"
Factory = Callable[[], Any]
_CONTEXTS = inspect.getfile(contextmanager)
_TOLD: set[tuple[str, str]] = set()  # by whom, and what


def telling_factory(factory: Any) -> Any:
    """The factory (or several by name) with environments that tell what goes wrong in them. Raises UserError for what
    makes none."""
    if isinstance(factory, Mapping):
        return {name: telling_factory(each) for name, each in factory.items()}
    if factory is None:
        return None
    if not callable(factory):
        raise UserError(FIELD, factory, "an environment, and not what makes one", "Pass its class, or a function.")
    return functools.partial(_made, factory)


def checked_rollouts(rollout_func: Any) -> Any:
    """The `rollout_func` with its rows checked. Raises UserError for what is none."""
    if rollout_func is None:
        return None
    if reason := uncallable(rollout_func, ["prompts", "trainer"]):
        raise UserError(ROLLOUTS, rollout_func, f"it {reason}", "Write def rollout(prompts, trainer).")

    @functools.wraps(rollout_func)
    def rollouts(prompts: Any, trainer: Any) -> Any:
        given = rollout_func(prompts, trainer)
        _check_rows(given, getattr(rollout_func, "__name__", "?"))
        return given

    return rollouts


def _check_rows(given: Any, name: str) -> None:
    """Rows of equal number; of each as many bits as tokens, and a sampled one among these."""
    remedy = "Return prompt_ids, completion_ids, logprobs (or None) and env_mask (1: sampled, 0: of the environment)."
    if not isinstance(given, Mapping) or not all(key in given for key in ("prompt_ids", "completion_ids", "logprobs")):
        shown = sorted(given) if isinstance(given, Mapping) else short(repr(given))
        raise UserError(ROLLOUTS, name, f"it gave {shown}", remedy)
    masks = given.get("env_mask")
    if masks is None:
        said = "there is no env_mask: all tokens count as sampled, and an episode is one turn"
        _tell_once((name, said), f"{name}: {said}. {remedy}")
        masks = [[1] * len(ids) for ids in given["completion_ids"]]
    counts = [len(given["prompt_ids"]), len(given["completion_ids"]), len(masks)]
    if len(set(counts)) > 1:
        raise UserError(ROLLOUTS, name, f"it gave {counts} prompts, completions and masks", remedy)
    for row, (ids, mask) in enumerate(zip(given["completion_ids"], masks, strict=True)):
        if len(ids) != len(mask):
            raise UserError(ROLLOUTS, name, f"row {row} has {len(ids)} tokens and a mask of {len(mask)}", remedy)
        if not any(mask):
            raise UserError(ROLLOUTS, name, f"row {row} has no sampled token", "Let the policy speak.")


def _tell_once(key: tuple[str, str], said: str) -> None:
    if key not in _TOLD:
        _TOLD.add(key)
        warnings.warn(said, stacklevel=2)


def _made(factory: Factory) -> Any:
    try:
        environment = factory()
    except (Exception, SystemExit) as error:
        raise _raised(getattr(factory, "__name__", "?"), "__init__", error) from error
    kind: Any = type(environment)  # mypy takes no class for hashable
    reset = getattr(kind, "reset", None)
    reason = None if reset is None else uncallable(reset, ["self"], ["prompt"])
    if reason:
        raise UserError(FIELD, kind.__name__, f"its reset {reason}", "Write def reset(self, **row).")
    environment.__class__ = _telling(kind)
    return environment


@functools.cache
def _telling(kind: Any) -> type:
    """The environment's class, its methods wrapped. TRL asks for the class of an instance, and its signatures."""
    methods = inspect.getmembers(kind, predicate=inspect.isfunction)
    wrapped = {name: _wrapped(kind, name, method) for name, method in methods if not name.startswith("_")}
    return type(kind.__name__, (kind,), {**wrapped, "__slots__": (), "__module__": kind.__module__})


def _wrapped(kind: type, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            with _failures_told(kind, name):
                return _checked(kind, name, await method(*arguments, **named))

        return awaited

    @functools.wraps(method)
    def called(*arguments: Any, **named: Any) -> Any:
        with _failures_told(kind, name):
            return _checked(kind, name, method(*arguments, **named))

    return called


@contextmanager
def _failures_told(kind: type, name: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if name in _GIVING:
            raise _raised(kind.__name__, name, error) from error
        if _frames(error):  # without: the model's arguments are not the tool's
            said = f"{kind.__name__}'s {name} raised {in_words(error)}; the model is told, and the episode goes on."
            key = (f"{kind.__module__}.{kind.__qualname__}.{name}", type(error).__name__)
            _tell_once(key, f"{said} {_place(error)}")
        if isinstance(error, SystemExit):  # it would end the training without a word
            raise RuntimeError(in_words(error)) from error
        raise


def _checked(kind: type, name: str, given: Any) -> Any:
    if name in _GIVING and given is not None and not _GIVING[name][0](given):
        raise UserError(FIELD, kind.__name__, f"its {name} gave {short(repr(given))}", _GIVING[name][1])
    return given


def _is_reward(given: Any) -> bool:
    try:
        return not isinstance(given, str) and np.ndim(given) == 0 and not math.isinf(float(given))
    except (TypeError, ValueError):
        return False


_GIVING: dict[str, tuple[Callable[[Any], bool], str]] = {  # TRL takes what these give as it is
    "reset": (
        lambda given: isinstance(given, str | list),
        "Return what the model sees first: a text, a list of content parts, or None.",
    ),
    "get_reward": (_is_reward, "Return a finite number, or None where there is no reward."),
}


def _raised(name: str, hook: str, error: BaseException) -> UserError:
    remedy = _place(error)
    if hook == "reset" and not _frames(error):
        remedy = "It is given the columns of a row by name: write def reset(self, **row)."
    return UserError(FIELD, name, f"its {hook} raised {in_words(error)}", remedy)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in (__file__, _CONTEXTS)]


def _place(error: BaseException) -> str:
    frames = _frames(error)
    return f"See {frames[0].filename}, line {frames[0].lineno}." if frames else "See its class."
