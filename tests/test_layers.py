"""Imports only point down (docs/architecture.md). A new module needs a place in `LAYERS`."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (  # low to high; names between two bars stand on one layer
    "types errors hooks sandbox | grading | protocol plugins algos envs graders | foreign | config configs | runs | "
    "policy data | rollouts prompts | env evaluation credit verifiers_env | reports | training | "
    "cli engines | __main__ scripts"
)
HEIGHT = {name: height for height, names in enumerate(LAYERS.split("|")) for name in names.split()}
ONLY = {  # who may import nothing of the project but this, besides the own package
    "envs": {"protocol", "types", "errors"},
    "sandbox": set(),
    "algos": {"types", "errors"},
    "grading": {"errors"},
}
FOREIGN = {
    "vllm": {"policy.vllm.local", "policy.vllm.draws", "policy.vllm.endpoint", "scripts.bench.vllm_engine"},
    "trl": {
        "training.compiled_output",
        "training.mrt_trainer",
        "training.stacks",
        "training.trainer_setup",
        "training.grpo_settings",
        "training.rl",
        "training.supervised",
        "training.update_trial",
        "scripts.bench.guards",
        "scripts.bench.peers",
        "scripts.bench.update",
    },
    "gymnasium": {"env", "rollouts.text_space"},
    "math_verify": {"grading.symbolic", "grading.bare", "scripts.bench.peers"},
}


def sources() -> dict[str, ast.Module]:
    """Every module by its name without `backtrack_mrt.`; a package is named like its folder."""
    found = {}
    for folder in ("backtrack_mrt", "envs", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = (
                path.relative_to(ROOT / "backtrack_mrt" if folder == "backtrack_mrt" else ROOT).with_suffix("").parts
            )
            name = ".".join(part for part in parts if part != "__init__")
            if name:
                found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = sources()


def imports(module: ast.Module) -> set[str]:
    """Full names of everything a module imports, wherever in it."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(name: str) -> set[str]:
    """The project's modules that the module `name` imports."""
    found = set()
    for full in imports(MODULES[name]):
        inner = full.removeprefix("backtrack_mrt.")
        while inner != full and inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        if inner in MODULES and inner != full:
            found.add(inner)
    return found - {name}


def height(name: str) -> int:
    """The layer of a module: its own, or its room's."""
    room = name.partition(".")[0]
    assert room in HEIGHT, f"give {room} a place in LAYERS"
    return HEIGHT[room]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
    upward = {other for other in own_imports(name) if height(other) > height(name)}
    assert not upward, f"{name} imports from a layer above its own"
    package = name.partition(".")[0]
    if package in ONLY and "." in name:
        strangers = {other for other in own_imports(name) if other.partition(".")[0] != package} - ONLY[package]
        assert not strangers, f"{name} may import only {sorted(ONLY[package])}"


def test_there_are_no_cycles():
    list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())


@pytest.mark.parametrize("library", FOREIGN)
def test_a_library_behind_a_seam_is_imported_by_its_module_only(library):
    users = {
        name for name, module in MODULES.items() if any(f"{i}.".startswith(f"{library}.") for i in imports(module))
    }
    assert users <= FOREIGN[library]


def test_the_light_modules_do_not_import_torch():
    light = (
        "types protocol rollouts.dialogue env evaluation.metrics.summary config cli.request grading data.loading "
        "runs.records envs.backtrack algos.mrt_rl"
    )
    code = f"""import importlib, sys
for name in "{light}".split():
    importlib.import_module("backtrack_mrt." + name)
    heavy = {{"torch", "transformers", "trl", "vllm", "peft", "datasets"}} & set(sys.modules)
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
