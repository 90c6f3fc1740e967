"""One name, one meaning: no public class or function of a module's top level is there twice in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAME = {  # the same act in another place, and why
    "arguments": "every command has it",
    "run": "every command has it",
    "main": "where a program begins",
    "train": "cli.api is the face of it",
    "evaluate": "cli.api is the face of it",
    "compare": "two runs (cli.api), two answers (inside grading)",
    "generate": "every generated task has it",
    "grade": "an answer in a worker process, or those of trajectories",
    "attend": "the attention of rows without padding: over the engine's cache, and in the update",
    "warm_up": "every comparison that a worker process can be asked for has it",
}


def public(module: ast.Module) -> set[str]:
    """Its classes and functions, and aliases of types (capitalised, not in capitals)."""
    found = set()
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            found |= {name for name in names if name[:1].isupper() and not name.isupper()}
    return {name for name in found if not name.startswith("_")}


def places() -> dict[str, list[str]]:
    """Every name with the files that define it."""
    found = defaultdict(list)
    for folder in ("backtrack_mrt", "envs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in public(ast.parse(path.read_text(encoding="utf-8"))):
                found[name].append(str(path.relative_to(ROOT)))
    return found


def test_a_name_means_one_thing() -> None:
    twice = {name: files for name, files in places().items() if len(files) > 1}
    assert {name: files for name, files in twice.items() if name not in SAME} == {}
    assert set(SAME) <= set(twice), "names that are no longer there twice"


@pytest.mark.parametrize(
    ("text", "names"), [("class A: ...\ndef f(): ...", {"A", "f"}), ("_x = 1\nWORDS = 2\nRow = int", {"Row"})]
)
def test_what_counts_as_a_name(text: str, names: set[str]) -> None:
    assert public(ast.parse(text)) == names
