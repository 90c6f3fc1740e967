"""Is what a plug-in says of the kind that its base asks for? Of a class this is told before anything is called; of an
instance, when it is made; of what a method gives, when it gives it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from types import FunctionType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation

from backtrack_mrt.errors import UserError, short

T = TypeVar("T")
Wrong = tuple[str, str]  # the reason, and the remedy


def wrong_hook(found: type, base: type) -> Wrong | None:
    """The first thing that `found` says instead of its `base` and that cannot take its place: a method that does not
    take what it will be given, a constant or a default of another type, a method where a property is meant, what is
    `final`."""
    if undefined := _undefined(found):
        return undefined
    settings: dict[str, Any] = getattr(found, "model_fields", {})
    hints = get_type_hints(base)
    for name, meant in vars(base).items():
        own, wrong = inspect.getattr_static(found, name), None
        if name.startswith(("_", "model_")) and (name != "__init__" or is_dataclass(base)):
            continue
        hook = meant.fget if isinstance(meant, property) else meant
        if own is not meant and getattr(hook, "__final__", False):
            asked = ", ".join(sorted(getattr(base, "__abstractmethods__", ())))
            wrong = "is not to be replaced: the package relies on it", f"Leave it out; asked for is {asked}."
        elif name in settings and isinstance(meant, FunctionType | property):
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
            kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            if wrong := _no_value(default, kind, field.default):
                return f"{found.__name__}.{name} {wrong[0]}", wrong[1]
    return None


def wrong_value(plugin: object, base: type) -> Wrong | None:
    """The first thing that a property of `plugin`, an instance, gives and that is not of the kind which its `base` says
    of it."""
    hints = get_type_hints(base)
    for name, meant in vars(base).items():
        own, default = inspect.getattr_static(type(plugin), name), meant
        if own is meant or not hasattr(own, "__get__"):
            continue
        if isinstance(meant, property) and meant.fget is not None:
            kind, default = get_type_hints(meant.fget)["return"], meant.fget(plugin)
        elif get_origin(hints.get(name)) is ClassVar:
            kind = get_args(hints[name])[0]
        else:
            continue
        given, asked = getattr(plugin, name), getattr(meant, "__isabstractmethod__", False)
        if wrong := _no_value(given, kind, default):
            remedy = f"Return {kind.__name__}." if asked else wrong[1]
            return f"{type(plugin).__name__}.{name} {wrong[0]}", remedy
        if inspect.isabstract(kind) and (within := wrong_hook(type(given), kind) or wrong_value(given, kind)):
            return within
    return None


def of_its_kind(field: str, plugin: object, hook: str, given: T) -> T:
    """`given`, which the method `hook` of a plug-in gave. Raises UserError (for `field`) for another kind of thing than
    the base's annotation names."""
    kind, returned = _returned(type(plugin).__mro__, hook)
    try:
        returned.validate_python(given, strict=True)
    except ValidationError:
        reason = f"its {hook} gave {short(repr(given))}"
        raise UserError(field, type(plugin).__name__, reason, f"Return {kind}.") from None
    return given


@cache
def _returned(classes: tuple[type, ...], hook: str) -> tuple[Any, TypeAdapter[Any]]:
    """What the method `hook` is to give, as the lowest base that has it says: the annotation, and what checks it."""
    meant = next(vars(c)[hook] for c in reversed(classes) if hook in vars(c))
    return inspect.signature(meant).return_annotation, TypeAdapter(get_type_hints(meant)["return"])


def _undefined(found: type) -> Wrong | None:
    """What the annotation of a setting names and nobody knows."""
    if getattr(found, "__pydantic_complete__", True):
        return None
    try:
        found.model_rebuild()  # type: ignore[attr-defined]
    except PydanticUndefinedAnnotation as error:
        return f"{found.__name__} has a setting of a type that is not known: {error.name}", "Import or define it above."
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
