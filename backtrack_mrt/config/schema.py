"""What a config takes: its fields by their dotted names, and what is typed for them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backtrack_mrt.errors import Mistakes, UserError


@dataclass(frozen=True)
class FlagWords:
    """What was typed behind a flag, each time that it was given; what it means depends on the field."""

    times: tuple[tuple[str, ...], ...]

    def meaning(self, annotation: Any) -> Any:
        """The value for a field of that type: None, text (which pydantic converts), or a list of texts. Raises
        ValueError for too many words, or too few."""
        kinds = {get_origin(kind) or kind for kind in members(annotation)}
        several = bool(kinds & {list, tuple})
        words = [word for time in self.times for word in time] if several else list(self.times[-1])
        if is_null(self):
            return None
        if not words and bool in kinds:
            return True
        if several and len(words) == 1 and words[0].startswith("[") and words[0].endswith("]"):
            return [word.strip(" '\"") for word in words[0][1:-1].split(",") if word.strip()]
        if not words or (len(words) > 1 and not several):
            raise ValueError("expected one argument" if not several else "expected at least one argument")
        return words if several else words[0]

    def __repr__(self) -> str:
        return repr(" ".join(self.times[-1]))


def is_null(value: Any) -> bool:
    """Whether a flag was last given the word ``null``."""
    return isinstance(value, FlagWords) and value.times[-1] == ("null",)


class Anew(dict[str, Any]):
    """A section that goes back to its defaults, whatever was said of it before."""


@dataclass
class Check:
    """Holds values against the models of their sections. `said` has for a dotted name how and where it was said,
    `owners` for a section whose settings it holds; `wrong` are the fields that are not as they were meant."""

    said: dict[str, str]
    owners: Mapping[str, str] = field(default_factory=dict)
    mistakes: Mistakes = field(default_factory=Mistakes)
    wrong: set[str] = field(default_factory=set)

    def section(self, values: Any, model: type[BaseModel], path: str = "") -> dict[str, Any]:
        """The fields of `model` among `values`, as they are meant."""
        prefix = f"{path}." if path else ""
        fields = self.mapping(values, path)
        kept = type(fields)()
        for key, value in fields.items():
            if key in model.model_fields:
                kept |= self._field(key, value, model.model_fields[key].annotation, prefix + key)
            else:
                self._unknown(prefix + key, value, field_paths(model, prefix))
        return kept

    def mapping(self, value: Any, path: str) -> dict[str, Any]:
        """What a section, or the like, is said to hold; nothing if it is left empty."""
        if is_null(value):
            return Anew()
        if value is None or isinstance(value, Mapping):
            return dict(value or {})
        name = path.rpartition(".")[2]
        self.refuse(path, value, "not a section", f"Write `{name}: {{key: value}}` in a file, or --{path}.KEY VALUE.")
        return {}

    def validate(self, model: type[BaseModel], values: Any, path: str = "") -> Any:
        """The values as an instance of `model`, None if they are not."""
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for details in error.errors():
                self._told(details, model, path)
            return None

    def refuse(self, path: str, value: Any, reason: str, remedy: str) -> None:
        """Keep a mistake."""
        self.mistakes.append(UserError(self.said.get(path, path), value, reason, remedy))
        self.wrong.add(path)

    def _field(self, key: str, value: Any, annotation: Any, path: str) -> dict[str, Any]:
        """The field and its value as it is meant; nothing if that is a mistake."""
        if (value is None or is_null(value)) and type(None) in members(annotation):
            return {key: None}
        if section := section_of(annotation):
            return {key: self.section(value, section, path)}
        if entries := entries_of(annotation):
            named = self.mapping(value, path)
            kept = type(named)()
            for name, entry in named.items():
                kept |= self._field(name, entry, entries, f"{path}.{name}")
            return {key: kept}
        if isinstance(value, FlagWords):
            try:
                return {key: value.meaning(annotation)}
            except ValueError as error:
                self.refuse(path, value, str(error), "Write --name value, or --name=value.")
                return {}
        if _is_number(annotation) and any(isinstance(v, bool) for v in (value if isinstance(value, list) else [value])):
            self.refuse(path, value, "not a number", "Write a number.")
            return {}
        return {key: value}

    def _unknown(self, path: str, value: Any, known: list[str]) -> None:
        section, _, leaf = path.rpartition(".")
        siblings = [name for name in known if name.rpartition(".")[0] == section]
        same = [name for name in known if name.rpartition(".")[2] == leaf]
        close = same or difflib.get_close_matches(path, siblings, n=1) or difflib.get_close_matches(path, known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        owner = self.owners.get(path.partition(".")[0])
        reason = f"{owner} has no such setting" if owner else "unknown key"
        leaves = ", ".join(sibling.rpartition(".")[2] for sibling in siblings)
        self.refuse(path, value, reason, f"{hint}Known here: {leaves}.")
        self.wrong |= set(close[:1])  # it is not as it was meant

    def _told(self, error: ErrorDetails, model: type[BaseModel], prefix: str) -> None:
        """What pydantic found, in the words of the config."""
        annotation: Any = model
        path, meaning = prefix, ""
        for part in error["loc"]:
            section, entries = section_of(annotation), entries_of(annotation)
            if section is not None and part in section.model_fields:
                named = section.model_fields[str(part)]
                annotation, meaning = named.annotation, named.description or ""
            elif entries is not None:
                annotation = entries
            else:
                break
            path = f"{path}.{part}" if path else str(part)
        if error["type"] == "frozen_instance":
            reason = f"its __init__ sets {error['loc'][-1]}, and an instance is frozen"
            self.refuse(path, error["input"], reason, f"Write `{error['loc'][-1]}: TYPE = DEFAULT` in the class.")
            return
        missing = error["type"] == "missing"
        reason = error["msg"].removeprefix("Value error, ").removesuffix(".")
        remedy = f"It is: {meaning}." if meaning else "See --help."
        self.refuse(path, None if missing else error["input"], reason[:1].lower() + reason[1:], remedy)
        if missing:
            self.wrong.add(path.rpartition(".")[0])


def members(annotation: Any) -> tuple[Any, ...]:
    """The types that a field may have, NoneType among them, without what `Annotated` says of them."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a section (or may be one), else None."""
    return next((m for m in members(annotation) if isinstance(m, type) and issubclass(m, BaseModel)), None)


def entries_of(annotation: Any) -> Any:
    """The type of the entries of a field that takes them by names of the user's own, else None."""
    return next((get_args(m)[1] for m in members(annotation) if get_origin(m) is dict), None)


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all fields, those of sections after the section's own."""
    paths = []
    for name, info in model.model_fields.items():
        paths.append(prefix + name)
        if section := section_of(info.annotation):
            paths += field_paths(section, f"{prefix}{name}.")
    return paths


def _is_number(annotation: Any) -> bool:
    """Whether numbers are meant, alone or in a list: pydantic takes yes for 1."""
    inner = [kind for member in members(annotation) for kind in (member, *get_args(member))]
    kinds = {kind for kind in inner for kind in (kind, *get_args(kind))}
    return bool(kinds & {int, float}) and bool not in kinds
