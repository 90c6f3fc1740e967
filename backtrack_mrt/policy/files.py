"""Where a model is: embedded, in a directory, on the hub; its shape without its weights. Imports no torch."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.hub import rely_on_cache_if_unreachable
from backtrack_mrt.runs.kinds import in_place_of_a_model

TINY = "tiny"
EMBEDDED = {TINY: "tiny", "tiny-countdown": "tiny_countdown"}  # models that come with the package: their folders here
_BUILT_BY = {TINY: "scripts/tiny/build.py", "tiny-countdown": "scripts/tiny/countdown.py"}
FIELD = "model.name_or_path"
_FETCH = (
    "Fetch it, in a checkout with `python scripts/fetch_smollm2.py`, elsewhere with `hf download "
    "HuggingFaceTB/SmolLM2-135M-Instruct --local-dir models/smollm2-135m-instruct`, or give a directory that holds it."
)


def find_model(section: ModelSection) -> str:
    """A directory that holds the model, or an adapter of one, or a hub name whose config.json can be had.

    Raises UserError."""
    name = section.name_or_path
    folder = folder_of(name)
    if name in EMBEDDED and not holds_model(folder):
        raise UserError(FIELD, name, "the embedded model is not built", f"Run {_BUILT_BY[name]}.")
    if folder.is_dir():
        if is_adapter(folder):
            find_model(base_of(section))
        elif not holds_model(folder):
            pickled = any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors"))
            kind = "only pickled weights (.bin), which are not read" if pickled else "no config.json with .safetensors"
            if found := in_place_of_a_model(folder, "model"):
                raise UserError(FIELD, name, *found)
            raise refusal(section, f"the directory holds {kind}")
        return str(folder)
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "~", "models/")):
        raise refusal(section, "no such directory")
    hub_file(section, "config.json")
    return name


def folder_of(name: str) -> Path:
    """Where the model of that name is, if it is no hub name."""
    if name in EMBEDDED:
        return Path(str(files("backtrack_mrt.policy"))) / EMBEDDED[name]
    return Path(os.path.expanduser(name))


def shape(section: ModelSection) -> dict[str, Any]:
    """The model's config.json, or what the config says of it, without torch and without weights. Raises UserError."""
    name = section.name_or_path
    folder = folder_of(name)
    if (folder / "config.json").is_file():
        return _read(folder / "config.json", section)
    if section.architecture is not None:
        return section.architecture.model_dump(exclude_none=True)
    if is_adapter(folder):
        return shape(base_of(section))
    whole = Path(find_model(section)) / "config.json" if folder.is_dir() else hub_file(section, "config.json")
    return _read(whole, section)


def chat_template(section: ModelSection) -> str | None:
    """The model's chat template, without its tokenizer; None if it has none. Raises UserError."""
    folder = folder_of(section.name_or_path)
    found = _beside(section, folder, "chat_template.jinja")
    if found is not None:
        return found.read_text(encoding="utf-8")
    settings = _beside(section, folder, "tokenizer_config.json")
    template = None if settings is None else _parsed(settings, section).get("chat_template")
    if template is None and is_adapter(folder):
        return chat_template(base_of(section))
    if isinstance(template, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _beside(section: ModelSection, folder: Path, file: str) -> Path | None:
    """A file of the model, in its directory or from the hub; None where it has none."""
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    try:
        return hub_file(section, file)
    except UserError:
        return None


def hub_file(section: ModelSection, file: str) -> Path:
    """A file of the model on the hub, by way of the cache. Raises UserError."""
    rely_on_cache_if_unreachable()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name = section.name_or_path
    try:
        return Path(hf_hub_download(name, file, revision=section.revision))
    except GatedRepoError as error:
        remedy = f"Ask for it at https://huggingface.co/{name}, then log in with `hf auth login`."
        raise UserError(FIELD, name, "the model is gated, and you have no access yet", remedy) from error
    except RepositoryNotFoundError as error:
        remedy = "Check the spelling; for a private model log in with `hf auth login`."
        raise UserError(FIELD, name, "the hub has no such model, or it is private", remedy) from error
    except Exception as error:  # offline, no such file: the library's word tells which
        raise refusal(
            section, f"not a directory, and {file} cannot be had from the hub: {first_line(error)}"
        ) from error


def refusal(section: ModelSection, reason: str) -> UserError:
    name = section.name_or_path
    if "smollm2-135m" in name.lower():
        return UserError(FIELD, name, reason, _FETCH)
    if folder_of(name).is_dir():
        return UserError(FIELD, name, reason, "Put its files back, or give another directory, 'tiny' or OWNER/NAME.")
    fetch = f"fetch it where there is a network (`hf download {name} --local-dir DIR`)"
    return UserError(FIELD, name, reason, f"Give 'tiny', a directory or OWNER/NAME; without a network {fetch}.")


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def base_of(section: ModelSection) -> ModelSection:
    """The model that the adapter in the directory `section` names was trained from. Raises UserError."""
    folder = Path(os.path.expanduser(section.name_or_path))
    said = _parsed(folder / "adapter_config.json", section)
    base, revision = said.get("base_model_name_or_path"), said.get("revision")
    if not isinstance(base, str) or not base or Path(os.path.expanduser(base)).resolve() == folder.resolve():
        raise refusal(section, "adapter_config.json names no base model")
    return section.model_copy(update={"name_or_path": base, "revision": revision})


def lineage(section: ModelSection) -> list[ModelSection]:
    """The model; below an adapter also the model that it was trained from, and so on to one that is whole."""
    if not is_adapter(Path(os.path.expanduser(section.name_or_path))):
        return [section]
    return [section, *lineage(base_of(section))]


def holds_model(folder: Path) -> bool:
    """Whether a whole model is there."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _read(path: Path, section: ModelSection) -> dict[str, Any]:
    read = _parsed(path, section)
    if "model_type" not in read:
        raise refusal(section, f"{path.name} names no model_type")
    return read


def _parsed(path: Path, section: ModelSection) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise refusal(section, f"{path.name} cannot be read: {first_line(error)}") from error
    return read if isinstance(read, dict) else {}


def first_line(error: Exception) -> str:
    """The first line that says something; torch says only in the second one what does not fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
