"""The digests of all that decides a run beside its config: problems, demonstrations, prompts, code, base weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from modulefinder import ModuleFinder
from pathlib import Path

from backtrack_mrt.config import Config, ModelSection
from backtrack_mrt.data.loading import ProblemSets
from backtrack_mrt.plugins import is_path
from backtrack_mrt.policy.files import find_model, hub_file, lineage
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.runs.inputs import digest, digest_of_files
from backtrack_mrt.types import Problem


def digests(config: Config, problems: ProblemSets) -> dict[str, str]:
    """By the names of what is read. Raises UserError for what cannot be."""
    texts = load_prompts(config.env, config.prompts).texts
    found = {
        "data.train": _of_problems(problems.train),
        "data.eval": _of_problems(problems.eval),
        "prompts": digest(part.encode(errors="surrogatepass") for item in sorted(texts.items()) for part in item),
        "code of env": digest_of_files(_code(config.env, config.protocol)),
        "code of algo": digest_of_files(_code(config.algo, config.algorithm)),
        "model": digest(part for section in lineage(config.model) for part in _of_model(section)),
    }
    for field, name in (("grader", config.grader), ("prover.estimator", config.prover.estimator)):
        if is_path(name):  # those that are shipped are the program's
            found[f"code of {field}"] = digest_of_files(_own_code(name))
    if config.data.traces:
        files = [Path(os.path.expanduser(name)) for name in config.data.traces]
        found["data.traces"] = digest_of_files(path for path in files if path.is_file())  # others are refused later
    return found


def _of_problems(problems: Iterable[Problem]) -> str:
    return digest(repr(astuple(problem)).encode() for problem in problems)


def _code(name: str, plugin: object) -> Iterator[Path]:
    """The file of a plug-in, and for the user's own one those beside it that it imports."""
    shipped = sys.modules[type(plugin).__module__].__file__
    files = _own_code(name) if is_path(name) else []
    yield from files or ([Path(shipped)] if shipped and Path(shipped).is_file() else [])


def _own_code(name: str) -> list[Path]:
    """The user's own file of that path and those beside it that it imports; none where it is no file."""
    path = Path(os.path.expanduser(name)).resolve()
    if not path.is_file():
        return []
    beside = ModuleFinder([str(path.parent)])
    beside.run_script(str(path))
    files = [Path(file) for module in beside.modules.values() if (file := getattr(module, "__file__", None))]
    return sorted(file for file in files if file.is_file())


def _of_model(section: ModelSection) -> Iterator[bytes]:
    """Of a folder what its files hold, of a model on the hub its commit; the embedded one comes with the program."""
    source = Path(find_model(section))
    if source.is_dir():
        kinds = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
        yield digest_of_files(sorted(path for kind in kinds for path in source.glob(kind))).encode()
    else:
        yield hub_file(section, "config.json").parent.name.encode()
