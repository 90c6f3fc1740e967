"""Find protocols, algorithms, graders and provers: by name (one file each, or an entry point of a wheel) or by path.

A name that ends in ``.py`` or holds a slash is the path of the user's own file, loaded from there; a run keeps a copy
of it under a place that tells its contents, ``plugins/<digest>/<file name>``, so that it can be moved and read again.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from backtrack_mrt.errors import Mistakes, RunError, UserError, UserErrors, did_you_mean, in_words
from backtrack_mrt.hooks import wrong_hook, wrong_value

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
SEAMS = {"base", "collecting"}  # modules that plug-ins are made of
_FIELDS = {  # of a config, by the package or entry-point group of what they name
    "backtrack_mrt.envs": "env",
    "backtrack_mrt.algos": "algo",
    "backtrack_mrt.graders": "grader",
    "backtrack_mrt.provers": "prover.estimator",
    "backtrack_mrt.stacks": "STACK",
}


@dataclass(frozen=True)
class PluginSource:
    """A plug-in's file, or a folder of prompts, as it was read: the contents by file name ("" for a single file)."""

    name: str
    contents: Mapping[str, bytes]

    @cached_property
    def digest(self) -> str:
        """Tells the contents apart: eight hexadecimal digits."""
        parts = (part for name, text in sorted(self.contents.items()) for part in (name.encode(), text))
        return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()[:8]

    @property
    def place(self) -> str:
        """Where a run keeps its copy, relative to its directory."""
        return f"plugins/{self.digest}/{self.name}"

    def write(self, run: Path) -> None:
        """Keep a copy in the run directory."""
        for name, text in self.contents.items():
            path = run / self.place / name if name else run / self.place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


FOREIGN = ("verifiers", "openenv")  # libraries whose environments are protocols and graders, by LIBRARY:NAME
_OWN: dict[str, dict[str, type]] = {}  # classes of plug-ins that are not ours, by their file and field
_SOURCES: dict[str, PluginSource] = {}  # by absolute path, as last read: a run outlives changes of the user's file


def is_path(name: str) -> bool:
    """Whether `name` is the path of a file or folder, and not the name of a plug-in."""
    return not is_foreign(name) and (name.endswith(".py") or "/" in name or os.sep in name)


def is_foreign(name: str) -> bool:
    """Whether `name` is that of another library's environment: ``verifiers:NAME``, ``openenv:MODULE:CLASS``."""
    return name.partition(":")[0] in FOREIGN and ":" in name


def label(name: str) -> str:
    """What a plug-in is called in titles and folder names: ``./my_protocol.py`` is ``my-protocol``."""
    if is_path(name):
        return dashed(Path(os.path.abspath(name)).name.removesuffix(".py"))
    return name.replace(":", "-") if is_foreign(name) else name


def anchored(name: str, folder: Path) -> str:
    """A path that is meant relative to `folder` as an absolute one; a name as it is."""
    return os.path.abspath(folder / Path(os.path.expanduser(name))) if is_path(name) else name


def read_source(path: str, field: str) -> PluginSource:
    """The file at `path`, or the Markdown files of the folder there. Raises UserError if it cannot be read."""
    here = Path(os.path.abspath(path))
    try:
        if here.is_dir():
            source = PluginSource(here.name, {file.name: file.read_bytes() for file in sorted(here.glob("*.md"))})
        else:
            source = PluginSource(here.name, {"": here.read_bytes()})
    except OSError as error:
        reason = f"{here} cannot be read: {error.strerror}"
        raise UserError(field, path, reason, "A path holds from where you are; in a YAML file, from there.") from error
    _SOURCES[str(here)] = source
    return source


def source_of(path: str, field: str) -> PluginSource:
    """The file or folder at `path` as this process last read it."""
    return _SOURCES.get(os.path.abspath(path)) or read_source(path, field)


def dashed(name: str) -> str:
    """A plug-in's name: dashes and underscores are the same."""
    return name.replace("_", "-")


def entry_points(group: str) -> metadata.EntryPoints:
    """Those of the packages that were installed when the first was asked for: to look through all takes a while."""
    found: metadata.EntryPoints = _installed().select(group=group)
    return found


@cache
def _installed() -> Any:  # Python 3.11 has another type for all of them
    return metadata.entry_points()


def names(package: str) -> list[str]:
    """Names of all plug-ins of `package` (e.g. "backtrack_mrt.envs"): its modules, written with dashes, and the entry
    points of the group of the same name."""
    return sorted(_modules(package) | {dashed(entry.name) for entry in entry_points(group=package)})


def load(package: str, name: str, base: type[T], field: str) -> type[T]:
    """The one class derived from `base` that the plug-in `name` (or the file at that path) defines.

    Raises UserError (for the config's `field`) for an unknown name, a name that is claimed twice, a plug-in that cannot
    be imported, a module with no or several such classes, and a class that lacks a method or has what cannot be one.
    """
    if not isinstance(name, str):
        raise UserError(field, name, "neither a name nor a path", f"Known: {', '.join(names(package))}; or ./FILE.py.")
    if is_foreign(name):
        found: type[T] = importlib.import_module("backtrack_mrt.foreign.plugins").plugin(name, base)
    else:
        found = _from_file(name, base, field) if is_path(name) else _by_name(package, name, base, field)
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        reason = f"{found.__name__} does not define {', '.join(missing)}"
        raise UserError(field, name, reason, f"Every {base.__name__} must.")
    if wrong := wrong_hook(found, base):
        raise UserError(field, name, *wrong)
    if is_own(found):
        _OWN.setdefault(inspect.getfile(found), {})[_FIELDS[package]] = found
    return found


@contextmanager
def failures_told() -> Iterator[None]:
    """What the code of a plug-in that is not ours raises inside is one line, with the place (UserError)."""
    try:
        yield
    except (UserError, RunError):
        raise
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in _OWN]
        if not frames:
            raise
        hook, classes = frames[0].name, _OWN[frames[0].filename]
        field = next((field for field, found in classes.items() if hook in vars(found)), next(iter(classes)))
        reason = f"its {hook} raised {in_words(error)}"
        where = f"See {frames[-1].filename}, line {frames[-1].lineno}."
        raise UserError(field, classes[field].__name__, reason, where) from error


def is_own(found: type) -> bool:
    """Whether the class of a plug-in is a user's own, and not one of the package."""
    return not found.__module__.startswith("backtrack_mrt.")


def configured(found: type[M], settings: Mapping[str, Any], field: str, base: type) -> M:
    """An instance of a plug-in with these settings. Raises UserError for what it does not take, and for properties that
    are not what its `base` says."""
    try:
        plugin = found(**settings)
    except ValidationError as error:
        mistakes = Mistakes()
        for told in error.errors():
            name = ".".join(map(str, told["loc"]))
            known = did_you_mean(name, found.model_fields)
            remedy = known if told["type"] == "extra_forbidden" else "See its settings in `backtrack-mrt train --help`."
            mistakes.append(UserError(f"{field}.{name}", told["input"], told["msg"], remedy))
        raise (UserErrors(mistakes) if len(mistakes) > 1 else mistakes[0]) from error
    if is_own(found) and (wrong := wrong_value(plugin, base)):
        raise UserError(field, found.__name__, *wrong)
    return plugin


def _by_name(package: str, name: str, base: type[T], field: str) -> type[T]:
    wanted = dashed(name)
    entries = [entry for entry in entry_points(group=package) if dashed(entry.name) == wanted]
    claims = [f"entry point {entry.value}" for entry in entries]
    if wanted in _modules(package):
        claims.append(f"module {package}.{wanted.replace('-', '_')}")
    if not claims:
        raise UserError(field, name, "unknown name", did_you_mean(wanted, names(package)))
    if len(claims) > 1:
        raise UserError(field, name, f"claimed by {' and '.join(claims)}", "Rename or remove all but one of them.")
    if entries:
        loaded = _imported(entries[0].load, field, name)
        if inspect.isclass(loaded) and issubclass(loaded, base):
            return loaded
        remedy = f"Point it at a {base.__name__} class."
        raise UserError(field, name, f"its entry point is not a {base.__name__}", remedy)
    module = f"{package}.{wanted.replace('-', '_')}"
    return _only_class(_imported(lambda: importlib.import_module(module), field, name), module, base, field, name)


def _modules(package: str) -> set[str]:
    if importlib.util.find_spec(package) is None:  # a seam whose own plug-ins are no files
        return set()
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return {dashed(module.name) for module in found if module.name not in SEAMS and not module.name.startswith("_")}


def _from_file(path: str, base: type[T], field: str) -> type[T]:
    if not path.endswith(".py") or Path(path).is_dir():
        raise UserError(field, path, "a path that is not a Python file's", "Name a file that ends in .py.")
    source = read_source(path, field)
    module = _imported(lambda: _executed(source, path), field, path)
    return _only_class(module, path, base, field, path)


def _executed(source: PluginSource, path: str) -> ModuleType:
    """The file's module. It is named by its contents: the run's copy of a file holds the same classes as the file."""
    name = f"backtrack_mrt_plugin_{source.digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = os.path.abspath(path)
    code = compile(source.contents[""], module.__file__, "exec", dont_inherit=True)
    sys.modules[name] = module  # pydantic looks up the names in annotations there
    try:
        exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _only_class(module: object, where: str, base: type[T], field: str, name: str) -> type[T]:
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == getattr(module, "__name__", "")]
    fitting = list(dict.fromkeys(c for c in own if issubclass(c, base)))
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(c.__name__ for c in fitting) or "none"
    raise UserError(
        field,
        name,
        f"{where} must define exactly one {base.__name__}, found: {found}",
        "Keep one such class per file and move the others to files of their own.",
    )


def _imported(load: Callable[[], object], field: str, name: str) -> object:
    try:
        return load()
    except (Exception, SystemExit) as error:  # whatever a third party's module does at import
        trace = traceback.extract_tb(error.__traceback__)
        frames = [f for f in trace if f.filename != __file__ and "importlib" not in f.filename]
        place = (frames[0].filename, frames[0].lineno) if frames else None
        if isinstance(error, SyntaxError) and error.filename:
            place = (error.filename, error.lineno)
        where = f"See {place[0]}, line {place[1]}." if place else "Install or repair it."
        raise UserError(field, name, f"it cannot be imported: {in_words(error)}", where) from error
