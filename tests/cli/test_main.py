"""`backtrack-mrt` itself: the list, the help of every command, and how it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt import __version__
from backtrack_mrt.cli.command import command_names, find, parser_of, summaries
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import Interrupted

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "backtrack_mrt"]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "vllm", "accelerate")


@pytest.mark.parametrize("line", [[], ["--help"], ["-h"]])
def test_alone_it_lists_the_commands(line: list[str]) -> None:
    told = command(*line)
    assert (told.returncode, told.stderr) == (0, "")
    for name, summary in summaries().items():
        assert f"  {name} " in told.stdout
        assert summary in told.stdout
        assert 20 < len(summary) < 100
        assert summary.endswith(".")
    assert [line for line in told.stdout.splitlines() if len(line) > 80] == []


def test_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert command("--version").stdout == f"backtrack-mrt {__version__}\n"
    assert project["version"] == __version__
    assert project["scripts"] == {"backtrack-mrt": "backtrack_mrt.cli.main:run"}


@pytest.mark.parametrize("name", command_names())
def test_the_help_of_a_command(name: str) -> None:
    told = command(name, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"usage: backtrack-mrt {name} ")
    assert summaries()[name].rstrip(".") in " ".join(told.stdout.split())
    assert "examples:" in told.stdout
    prose = [line for line in told.stdout.splitlines() if not line.startswith("  ")]  # no command, no table
    assert [line for line in prose if len(line) > 80] == []


def test_what_is_missing_is_named() -> None:
    told = command("compare")
    assert told.stderr == "error: command line = 'RUN': required, and not given. See `backtrack-mrt compare --help`.\n"


@pytest.mark.parametrize("name", command_names())
def test_its_examples_are_understood(name: str) -> None:
    lines = [line.strip() for line in find(name).EXAMPLES.splitlines()]
    assert any(line.startswith(f"backtrack-mrt {name}") for line in lines)
    for line in lines:
        words = shlex.split(line.rpartition(" | ")[2], comments=True)
        typed = words[: words.index("<")] if "<" in words else words
        assert typed[0] == "backtrack-mrt"
        args = parser_of(typed[1]).parse(typed[2:])
        if parser_of(typed[1]).takes_settings:
            read_request(args.settings)


def test_help_loads_nothing_heavy() -> None:
    """One process for the help of all commands, and the mistakes that are told before anything is loaded."""
    code = f"""
import sys
from backtrack_mrt.cli.main import main
for line in [[], *([name, "--help"] for name in {command_names()!r})]:
    try:
        main(line)
    except SystemExit:
        pass
    heavy = set({HEAVY!r}) & set(sys.modules)
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("evalaute", "COMMAND = 'evalaute': there is no such command. Did you mean 'evaluate'?"),
        ("--vresion", "there is no such command"),
        ("show", "FILE.jsonl"),
        ("show x.jsonl --phse revise", "Did you mean '--phase'"),
        ("show x.jsonl --n many", "--n = 'many': not a whole number of at least 1"),
        ("show x.jsonl y.jsonl", "y.jsonl"),
        ("export tiny --out x --dtype int4", "--dtype"),
        ("report --traces", "--traces"),
        ("evaluate tiny --evaluation.sample 3", "Did you mean 'evaluation.samples'"),
        ("train --algo mrtrl", "Did you mean 'mrt-rl'"),
        ("evaluate tiny --resume", "error: --resume: only `backtrack-mrt train` has it"),
        ("play --dry_run=h100", "only `backtrack-mrt train` has it"),
        ("checks", "--demonstrations --attempts"),
    ],
)
def test_a_mistake_is_one_line(line: str, told: str, tmp_path: Path) -> None:
    done = command(*line.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        (["ev"], {"evaluate"}, {"export"}),
        (["evaluate", "--t"], {"--traces", "--training.steps"}, {"--data.eval"}),
        (["train", "--algo", ""], {"mrt-rl", "star"}, {"backtrack"}),
        (["train", "--engine.type", ""], {"hf", "vllm"}, {"mrt-rl"}),
        (["grade", "--su"], {"--summary"}, {"--seed"}),
    ],
)
def test_completion_in_bash(completion: Path, typed: list[str], offered: set[str], not_offered: set[str]) -> None:
    words = " ".join(map(shlex.quote, ["backtrack-mrt", *typed]))
    code = rf"""
source {completion}
COMP_WORDS=({words}) COMP_CWORD={len(typed)}
function=$(complete -p backtrack-mrt | sed 's/.*-F \([^ ]*\).*/\1/')
$function
printf '%s\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    told = set(done.stdout.split())
    assert told >= offered
    assert not told & not_offered


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("shell") / "completion.bash"
    file.write_text(command("--print-completion", "bash").stdout)
    return file


def test_completion_of_other_shells() -> None:
    assert command("--print-completion", "zsh").stdout.startswith("#compdef backtrack-mrt")
    for line in (["--print-completion"], ["--print-completion", "bsh"]):
        refused = command(*line)
        assert (refused.returncode, "bash" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        "report --traces t.jsonl --out no/such.html",
        "report --traces t.jsonl --out .",
        "report RUN RUN --out file/inside",
        "compare RUN RUN --out file/inside",
        "evaluate --traces t.jsonl --out file/inside",
        "evaluate tiny --save file/inside",
        "rate --out file/inside.jsonl",
        "export tiny --out file/inside",
        "play --save no/such.jsonl",
        "train --output-dir file/inside",
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(line: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "t.jsonl").write_text('{"problem": {"id": "a", "question": "?", "answer": "2"}, "turns": []}\n')
    told = command(*line.split(), cwd=tmp_path)
    assert told.returncode == 2
    assert "--out" in told.stderr or "--save" in told.stderr or "--output-dir" in told.stderr
    assert told.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "t.jsonl"}


COMMAND = re.compile(r"`?backtrack-mrt ([a-z][a-z-]+)\b(?! command)")


@pytest.mark.parametrize("folder", ["backtrack_mrt", "configs", "envs", "prompts", "scripts", ".ci", ".github"])
def test_what_the_code_names_exists(folder: str) -> None:
    texts = (".py", ".md", ".yaml", ".yml", ".html")
    for path in (path for path in (ROOT / folder).rglob("*") if path.suffix in texts):
        text = path.read_text(encoding="utf-8")
        assert set(COMMAND.findall(text)) <= set(command_names()), path
        assert [script for script in re.findall(r"\bscripts/[\w/]+\.py", text) if not (ROOT / script).is_file()] == []


def test_the_old_name_is_an_alias() -> None:
    script = ROOT / "scripts" / "train_backtrack.py"
    told = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.startswith("usage: backtrack-mrt train ")


def test_exit_codes_of_the_process(tmp_path: Path) -> None:
    assert subprocess.run([*PROGRAM, "--version"], capture_output=True, check=False).returncode == 0
    mistake = subprocess.run([*PROGRAM, "nope"], capture_output=True, text=True, check=False)
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert "Traceback" not in mistake.stderr


@pytest.mark.parametrize("line", [["--help"], ["train", "--help"], ["grade", "-"]])
def test_a_reader_who_goes_away(line: list[str]) -> None:
    """Nothing is said of it: neither by the program nor by Python when it ends."""
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen([*PROGRAM, *line], stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        _, told = process.communicate(b'{"gold": "7", "answer": "7"}\n')
    assert (process.returncode, told) == (141, b"")


def test_control_c() -> None:
    """While it waits for rows."""
    with subprocess.Popen(
        [*PROGRAM, "grade", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"gold": "7", "answer": "7"}\n' + b" " * 9_000 + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert (process.returncode, told) == (130, b"interrupted\n")


def test_control_c_while_libraries_are_read() -> None:
    code = """
import sys
class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name in ("pydantic", "numpy"):
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
from backtrack_mrt.cli.main import run
run(["train"])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (130, "interrupted\n")


COMPARED = ["--compare", "grpo", "--training.sampled_tokens", "2000", "--output-dir", "two runs"]
TUNED = [*COMPARED[:-2], "--tune", "training.learning_rate", "1e-3", "3e-4", *COMPARED[-2:]]  # as it is repeated


@pytest.mark.parametrize(
    ("line", "interrupted", "saved"),
    [
        (["--output-dir", "one run"], "backtrack_mrt.training.train.train", "nothing"),
        (COMPARED, "backtrack_mrt.training.compare.train_and_compare", "two runs, 1 finished run and what"),
        (TUNED, "backtrack_mrt.training.tune.tune", "two runs, 1 finished run and what"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(
    line: list[str], interrupted: str, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise Interrupted(130)

    monkeypatch.setattr(interrupted, stopped)
    (tmp_path / "two runs" / "grpo-seed0").mkdir(parents=True)
    (tmp_path / "two runs" / "grpo-seed0" / "summary.json").write_text("{}")
    told = command("train", *line, cwd=tmp_path)
    assert told.returncode == 130
    assert told.stderr.startswith(f"saved: {saved}")
    again = "the same command" if saved == "nothing" else f"backtrack-mrt train {shlex.join(line)}"
    assert told.stderr.endswith(f"\ngo on with: {again}\n")


def test_a_run_has_several_files_to_show(tmp_path: Path) -> None:
    file = tmp_path / "run" / "trajectories" / "evaluation_base.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("")
    told = command("show", tmp_path / "run")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert f"and no file. Give a file, such as {file}." in told.stderr
    file.unlink()
    assert "Give a file, such as one in RUN/trajectories." in command("show", tmp_path).stderr
