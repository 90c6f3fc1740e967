"""Find protocols and algorithms by name: one file each, or an entry point of a third-party wheel."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import TypeVar

from backtrack_mrt.errors import UserError, did_you_mean

T = TypeVar("T")


def names(package: str) -> list[str]:
    """Names of all plug-ins of `package` (e.g. "backtrack_mrt.envs"): its modules, written with dashes, and the entry
    points of the group of the same name."""
    modules = [m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    own = {m.replace("_", "-") for m in modules if m != "base" and not m.startswith("_")}
    return sorted(own | {e.name for e in entry_points(group=package)})


def load(package: str, name: str, base: type[T], field: str) -> type[T]:
    """The one class derived from `base` that the plug-in `name` defines. Dashes and underscores are the same.

    Raises UserError for an unknown name, a module that does not import, and a module with no or several such classes.
    """
    wanted = name.replace("_", "-")
    for entry in entry_points(group=package):
        if entry.name.replace("_", "-") == wanted:
            return _checked(entry.load(), base, field, name)
    if wanted not in names(package):
        raise UserError(field, name, "unknown name", did_you_mean(wanted, names(package)))
    module = importlib.import_module(f"{package}.{wanted.replace('-', '_')}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        found = ", ".join(c.__name__ for c in own) or "none"
        raise UserError(
            field,
            name,
            f"{module.__name__} must define exactly one {base.__name__}, found: {found}",
            "Keep one such class per file and move the others to files of their own.",
        )
    return own[0]


def _checked(loaded: object, base: type[T], field: str, name: str) -> type[T]:
    if isinstance(loaded, type) and issubclass(loaded, base):
        return loaded
    raise UserError(field, name, f"its entry point is not a {base.__name__}", f"Point it at a {base.__name__} class.")
