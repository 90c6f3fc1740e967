"""The wheel: all files are in it and nothing else, and installed into an empty environment it does what a checkout
does, from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
PLACES = {"backtrack_mrt": "", "envs": "backtrack_mrt/", "prompts": "backtrack_mrt/", "configs": "backtrack_mrt/"}
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
SHORT = [
    *("--training.steps", "2", "--training.problems_per_step", "4", "--training.group_size", "4"),
    *("--training.micro_batch_size", "8", "--data.eval_size", "8", "--data.train_size", "40"),
]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves traces where it works."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PLACES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_every_file_is_in_it_and_nothing_at_the_top(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    assert held == {
        f"{prefix}{path.relative_to(ROOT).as_posix()}" for name, prefix in PLACES.items() for path in files(ROOT / name)
    }


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`backtrack-mrt` of an environment with the wheel and nothing else, which borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    (site,) = folder.glob("lib/*/site-packages")
    assert sorted(path.name.partition("-")[0] for path in site.iterdir()) == ["backtrack_mrt", "backtrack_mrt"]
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(borrowed))
    return folder / "bin" / "backtrack-mrt"


@pytest.mark.slow
def test_it_does_what_a_checkout_does(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(*arguments: str, given: str = "") -> str:
        command = [str(installed), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [str(installed.with_name("python")), "-c", "import backtrack_mrt; print(backtrack_mrt.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(installed.parent.parent))
    assert "  train " in run("--help")
    assert "smollm2_135m.yaml" in run("train", "--help")
    run("train", "--algo", "mrt-rl", "--output-dir", "run", *SHORT)
    assert (tmp_path / "run" / "report.html").is_file()
    run("evaluate", "run", "--data.eval_size", "4")
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["summary"]["accuracy"]["n"] == 4
    (tmp_path / "run" / "report.html").unlink()
    run("report", "run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert "Problem signs/test/" in run("show", "run/trajectories/evaluation_trained.jsonl", "--n", "1")
    assert json.loads(run("grade", "-", given='{"gold": "1/2", "answer": "0.5"}'))["verdict"] == "right"
    run("export", "run", "--out", "exported")
    assert "no mistake found." in run("check-env", "backtrack")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "exported"}
