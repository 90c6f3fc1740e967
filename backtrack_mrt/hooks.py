"""Is what a plug-in's class says of the kind that its base asks for? Told before anything is called."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import FunctionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

Wrong = tuple[str, str]  # the reason, and the remedy


def wrong_hook(found: type, base: type) -> Wrong | None:
    """The first thing that `found` says instead of its `base` and that cannot take its place: a method that does not
    take what it will be given, a constant or a default of another type, a method where a property is meant."""
    settings: dict[str, Any] = getattr(found, "model_fields", {})
    hints = get_type_hints(base)
    for name, meant in vars(base).items():
        own, wrong = inspect.getattr_static(found, name), None
        if name.startswith(("_", "model_")) and name != "__init__":
            continue
        if name in settings and isinstance(meant, FunctionType | property):
            wrong = "is a setting by the name of something else", "Name the setting otherwise."
        elif own is not meant and isinstance(meant, FunctionType):
            wrong = _no_method(getattr(found, name), meant)
        elif own is not meant and inspect.isfunction(own):
            wrong = "is a method, and nobody calls it", "Write @property above it."
        elif get_origin(hints.get(name)) is ClassVar and not hasattr(own, "__get__"):
            wrong = _no_value(own, get_args(hints[name])[0], meant)
        if wrong:
            return f"{found.__name__}.{name} {wrong[0]}", wrong[1]
    for name, field in getattr(base, "model_fields", {}).items():
        setting = settings.get(name)
        if setting is None or not setting.is_required():
            default = getattr(found, name) if setting is None else setting.get_default(call_default_factory=True)
            if wrong := _no_value(default, field.annotation, field.default):
                return f"{found.__name__}.{name} {wrong[0]}", wrong[1]
    return None


def uncallable(own: object, asked: Sequence[str], by_name: Sequence[str] = ()) -> str | None:
    """Why `own` cannot be called with arguments of these names, and others that are given by name; None if it can."""
    if not callable(own):
        return "is no method"
    if inspect.iscoroutinefunction(own) or inspect.isasyncgenfunction(own):
        return "is asynchronous, and nobody awaits it"
    try:
        given = inspect.signature(own).bind(*asked, **{name: name for name in by_name}).arguments
    except TypeError as error:
        return f"cannot be called: {error}"
    except ValueError:  # a function of C that does not say what it takes
        return None
    swapped = next((name for name, argument in given.items() if name in asked and argument != name), None)
    return None if swapped is None else f"takes {swapped} in another place"


def _no_method(own: object, meant: FunctionType) -> Wrong | None:
    """Why a method cannot take the place of the base's, and the remedy."""
    named = inspect.signature(meant).parameters.values()
    asked = [p.name for p in named if p.kind is not p.KEYWORD_ONLY]
    by_name = [p.name for p in named if p.kind is p.KEYWORD_ONLY]
    reason = uncallable(own, asked, by_name)
    if reason is None:
        return None
    return reason, f"Write def {meant.__name__}({', '.join([*asked, *['*'][: len(by_name)], *by_name])})."


def _no_value(own: object, kind: Any, default: object) -> Wrong | None:
    """Why a constant or a setting's default cannot be one of its kind, and the remedy."""
    try:
        TypeAdapter(kind).validate_python(own, strict=True)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        return f"is {own!r}: {said[:1].lower()}{said[1:]}", f"The default is {default!r}."
    return None
