"""Find protocols and algorithms by name: one file each, or an entry point of a third-party wheel."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from backtrack_mrt.errors import UserError, did_you_mean

T = TypeVar("T")


def canonical(name: str) -> str:
    """A plug-in's name: dashes and underscores are the same."""
    return name.replace("_", "-")


def names(package: str) -> list[str]:
    """Names of all plug-ins of `package` (e.g. "backtrack_mrt.envs"): its modules, written with dashes, and the entry
    points of the group of the same name."""
    return sorted(_modules(package) | {canonical(entry.name) for entry in entry_points(group=package)})


def load(package: str, name: str, base: type[T], field: str) -> type[T]:
    """The one class derived from `base` that the plug-in `name` defines.

    Raises UserError (for the config's `field`) for an unknown name, a name that is claimed twice, a plug-in that cannot
    be imported, a module with no or several such classes, and a class that lacks a method.
    """
    wanted = canonical(name)
    entries = [entry for entry in entry_points(group=package) if canonical(entry.name) == wanted]
    claims = [f"entry point {entry.value}" for entry in entries]
    if wanted in _modules(package):
        claims.append(f"module {package}.{wanted.replace('-', '_')}")
    if not claims:
        raise UserError(field, name, "unknown name", did_you_mean(wanted, names(package)))
    if len(claims) > 1:
        raise UserError(field, name, f"claimed by {' and '.join(claims)}", "Rename or remove all but one of them.")
    found = _from_entry(entries[0], base, field, name) if entries else _from_module(package, wanted, base, field, name)
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        reason = f"{found.__name__} does not define {', '.join(missing)}"
        raise UserError(field, name, reason, f"Every {base.__name__} must.")
    return found


def _modules(package: str) -> set[str]:
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return {canonical(module.name) for module in found if module.name != "base" and not module.name.startswith("_")}


def _from_entry(entry: EntryPoint, base: type[T], field: str, name: str) -> type[T]:
    loaded = _imported(entry.load, field, name)
    if inspect.isclass(loaded) and issubclass(loaded, base):
        return loaded
    raise UserError(field, name, f"its entry point is not a {base.__name__}", f"Point it at a {base.__name__} class.")


def _from_module(package: str, wanted: str, base: type[T], field: str, name: str) -> type[T]:
    module = _imported(lambda: importlib.import_module(f"{package}.{wanted.replace('-', '_')}"), field, name)
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == getattr(module, "__name__", "")]
    fitting = list(dict.fromkeys(c for c in own if issubclass(c, base)))
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(c.__name__ for c in fitting) or "none"
    raise UserError(
        field,
        name,
        f"{package}.{wanted.replace('-', '_')} must define exactly one {base.__name__}, found: {found}",
        "Keep one such class per file and move the others to files of their own.",
    )


def _imported(load: Callable[[], object], field: str, name: str) -> object:
    try:
        return load()
    except Exception as error:  # whatever a third party's module does at import
        trace = traceback.extract_tb(error.__traceback__)
        frames = [f for f in trace if f.filename != __file__ and "importlib" not in f.filename]
        where = f"See {frames[0].filename}, line {frames[0].lineno}." if frames else "Install or repair it."
        reason = f"it cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(field, name, reason, where) from error
