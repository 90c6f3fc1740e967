"""What may be installed, what was tested together, and the table that tells both."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.documents import section

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = [
    Requirement(line)
    for line in chain(
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
]
TESTED = {
    canonicalize_name(pin.name): pin.specifier
    for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    if (pin := Requirement(line.partition("#")[0]) if line.partition("#")[0].strip() else None)
}
UNTESTED = {"wandb", "trackio", "setuptools", "verifiers", "openenv"}  # not in that set
NAMES = {"PyTorch": "torch"}


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_a_dependency_has_both_bounds_and_its_tested_version_lies_between(wanted: Requirement) -> None:
    assert {bound.operator for bound in wanted.specifier} == {">=", "<"}
    if wanted.name in UNTESTED:
        return
    pinned = TESTED[canonicalize_name(wanted.name)]
    versions = [bound.version for bound in pinned if bound.operator in ("==", ">=")]
    assert versions
    assert all(wanted.specifier.contains(version) for version in versions)


def test_constraints_are_versions_and_no_addresses() -> None:
    text = (ROOT / ".ci" / "constraints.txt").read_text()
    assert "://" not in text
    assert "@" not in text
    assert [name for name, pinned in TESTED.items() if len(pinned) != 1] == ["numpy"]


def test_the_table_is_that() -> None:
    rows = re.findall(
        r"^\| (\w+) \| (\S+) \| ([\d.]+)[^|]* \| ([\d.]*) ?\| ([\d.]*) ?\|$",
        section("docs/versions.md", "Versions"),
        re.MULTILINE,
    )
    told = {canonicalize_name(NAMES.get(name, name)): row for name, *row in rows}
    assert told.pop("python")[0] == PROJECT["project"]["requires-python"]
    ranges = {canonicalize_name(wanted.name): wanted.specifier for wanted in WANTED}
    assert told.keys() == {"torch", "transformers", "trl", "peft", "accelerate", "vllm", "bitsandbytes"}
    for name, (allowed, tested, oldest, newest) in told.items():
        assert {*allowed.split(",")} == {str(bound) for bound in ranges[name]}
        assert str(TESTED[name]) == f"=={tested}"
        assert not oldest or allowed.split(",")[0] in (f">={oldest}", f">={oldest.removesuffix('.0')}")
        assert not newest or ranges[name].contains(newest)


def test_make_installs_nothing_else() -> None:
    lines = (ROOT / "Makefile").read_text().replace("\\\n", "").splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) >= 3
    assert all("--constraint $(TESTED)" in line or "--resolution $(RESOLUTION_$*)" in line for line in installs)
