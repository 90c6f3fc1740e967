"""Commands in documents are read by the program's own parser, and what documents name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from support.command_line import command
from support.documents import (
    DOCUMENTS,
    ROOT,
    blocks,
    commands_of,
    files_in,
    first_cells,
    our_commands,
    text_of,
    words_of,
)

import backtrack_mrt
from backtrack_mrt.cli.command import command_names, parser_of
from backtrack_mrt.cli.request import read_request

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text().replace("$(VLLM)", ".venv-vllm")
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
LINES = sorted({line for name in NAMES for line in commands_of(name)})
PLACES = r"`((?:backtrack_mrt|scripts|tests|configs|envs|prompts|docs|\.ci)/[\w/.-]*)`"
OURS = our_commands()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that command lines name."""
    for document in ("README.md", "docs/protocols.md", "docs/algorithms.md", "docs/graders.md"):
        for name, source in files_in(document).items():
            (tmp_path / name).write_text(source)
            (tmp_path / name.removesuffix(".py")).mkdir(exist_ok=True)
    (tmp_path / "mine.yaml").write_text("seed: 0\n")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "my_credit.py").write_text(files_in("README.md")["equal_progress.py"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_they_are_found() -> None:
    assert len(OURS) > 40
    assert {arguments[0] for arguments in OURS.values()} >= {*command_names()}


@pytest.mark.parametrize("line", OURS)
def test_commands_are_understood(here: Path, line: str) -> None:
    name, *rest = OURS[line]
    if {"--help", "--version", "--print-completion"} & {name, *rest}:
        assert command(name, *rest).returncode == 0
        return
    parser = parser_of(name)
    if len(rest) < 2 and all(word.startswith("--") for word in rest):
        assert parser.takes_settings or {*rest} <= {*parser._option_string_actions}  # a mention, such as `rate`
        return
    args = parser.parse(rest)
    if parser.takes_settings:
        read_request(args.settings)


def test_the_readmes_runs_lie_side_by_side(here: Path) -> None:
    trained = {tuple(OURS[line][1:]) for line in commands_of("README.md") if OURS.get(line, [""])[0] == "train"}
    begun = [words for words in trained if not {"--resume", "--dry-run", "--compare", "--help"} & {*words}]
    paths = [read_request(words).config.run_path for words in begun]
    assert len(paths) > 6
    assert len({*paths}) == len(paths)


@pytest.mark.parametrize("text", [block for name in NAMES for block in blocks(name, "yaml")])
def test_settings_are_understood(here: Path, text: str) -> None:
    Path("shown.yaml").write_text(text)
    read_request(["--config", "tiny.yaml", "shown.yaml"])


@pytest.mark.parametrize("line", [line for line, arguments in OURS.items() if "--dry-run" in arguments])
def test_plans_are_made(line: str) -> None:
    found = command(*OURS[line])
    assert (found.returncode, found.stderr) == (0, "")
    assert "time per step" in found.stdout


@pytest.mark.parametrize("line", [line for line in LINES if line not in OURS])
def test_other_commands_name_what_there_is(line: str) -> None:
    words = words_of(line)
    extras = PROJECT["project"]["optional-dependencies"]
    for wanted in re.findall(r"backtrack-mrt\[(\w+)\]", line):
        assert wanted in extras
    if words[:1] == ["make"]:
        assert re.search(rf"^{re.escape(words[1])}:", MAKEFILE, re.MULTILINE)
    if words[:1] == ["python"] and words[1] != "-m":
        script = ROOT / words[1]
        source = script.read_text()
        beside = [path for path in script.parent.glob("*.py") if f"from {path.stem} import" in source]
        source += "".join(path.read_text() for path in beside)
        flags = {word.partition("=")[0] for word in words if word.startswith("--") and "." not in word}
        assert {flag for flag in flags if flag not in source and flag != "--seed"} == set()


def test_what_can_be_chosen_is_listed_whole() -> None:
    (extras,) = re.findall(r"# extras: (.*)$", text_of("README.md"), re.MULTILINE)
    assert {*extras.split(", ")} == {*PROJECT["project"]["optional-dependencies"]}
    shipped = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert shipped <= first_cells(text_of("docs/models.md"))


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_exists(name: str) -> None:
    named = {*re.findall(PLACES, text_of(name))}
    assert [place for place in named if not (ROOT / place).exists() and "/mine" not in place] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_read_in_one_sitting(name: str) -> None:
    assert len(text_of(name).splitlines()) <= 260


def test_the_demo_is_the_command_that_is_told() -> None:
    (line,) = (line for line in commands_of("README.md") if line.startswith("python scripts/train_backtrack.py"))
    assert f"{line.partition('.py ')[2]})" in MAKEFILE.partition("\ndemo:")[2].partition("\n\n")[0]


def test_every_command_has_its_line() -> None:
    assert set(command_names()) <= set(re.findall(r"^\| `([\w-]+)` \|", text_of("docs/commands.md"), re.MULTILINE))


def test_hooks_and_workflow_run_what_ci_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = MAKEFILE.replace("$(BIN)", ".venv/bin").partition("\nlint:")[2].partition("\n\n")[0]
    assert [hook["entry"] for hook in hooks] == [line.strip() for line in lint.splitlines()[1:]]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for job in jobs for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_version_is_one() -> None:
    version = PROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version == backtrack_mrt.__version__
    assert f"\n## {version} (" in text_of("CHANGELOG.md")
