"""Plug-ins that are files of the user's: loaded from any path, told by their names, and kept with the run."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from support.short_runs import SHORT

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.request import comparison_requests, read_request
from backtrack_mrt.config import Config, RunRequest
from backtrack_mrt.config.files import read_config
from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.reports.build import report_run
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.training.train import train

pytestmark = pytest.mark.usefixtures("no_reports")

PACKAGE = Path(str(files("backtrack_mrt")))
ENVS, PROMPTS = (Path(str(files(f"backtrack_mrt.{name}"))) for name in ("envs", "prompts"))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a protocol, its prompts and an algorithm in it."""
    shutil.copy(ENVS / "single.py", tmp_path / "my_protocol.py")
    shutil.copy(PACKAGE / "algos" / "grpo.py", tmp_path / "my_credit.py")
    shutil.copytree(PROMPTS / "single" / "terse", tmp_path / "words")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_own(path: str) -> type[EpisodeProtocol]:
    return plugins.load("backtrack_mrt.envs", path, EpisodeProtocol, "env")  # type: ignore[type-abstract]


FLAGS = ("--env", "./my_protocol.py", "--prompts", "./words", "--algo", "my_credit.py")


def config_of(*flags: str) -> Config:
    return read_request([*SHORT, *FLAGS, *flags]).config


def test_a_file_is_a_protocol_and_an_algorithm(own: Path) -> None:
    config = config_of("--protocol.attempt_tokens", "7")
    assert type(config.protocol).__name__ == "Single"
    assert config.protocol.model_dump()["attempt_tokens"] == 7
    assert isinstance(config.algorithm, Algorithm)
    assert config.run_path == Path("runs/my-protocol-my-credit-seed0")
    assert load_prompts(config.env, config.prompts).texts == load_prompts("single", "terse").texts


def test_one_file_may_hold_both(own: Path) -> None:
    both = (own / "my_protocol.py").read_text() + (own / "my_credit.py").read_text().replace(
        "from __future__ import annotations\n", ""
    )
    (own / "both.py").write_text(both)
    config = config_of("--env", "both.py", "--algo", "both.py")
    assert config.run_path.name == "both-both-seed0"


def test_the_same_contents_are_the_same_class_wherever_the_file_is(own: Path) -> None:
    first = load_own("my_protocol.py")
    shutil.copy("my_protocol.py", "other_name.py")
    assert load_own(str(own / "other_name.py")) is first
    (own / "my_protocol.py").write_text((own / "my_protocol.py").read_text() + "\n# changed\n")
    assert load_own("./my_protocol.py") is not first


def test_a_path_in_a_yaml_file_is_relative_to_that_file(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "mine.yaml").write_text("env: my_protocol.py\nprompts: ./words\nprotocol: {attempt_tokens: 9}\n")
    monkeypatch.chdir(own.parent)
    config = read_request(["--config", "tiny.yaml", f"{own.name}/mine.yaml"]).config
    assert config.protocol.model_dump()["attempt_tokens"] == 9
    assert load_prompts(config.env, config.prompts).texts["attempt"] == "Solve."


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1", r"bad\.py must define exactly one EpisodeProtocol, found: none"),
        ("from backtrack_mrt.envs.single import Single\n", "found: none"),
        ("import no_such_module", r"cannot be imported: ModuleNotFoundError.*bad\.py, line 1"),
        ("x = 1\ndef broken(:", r"cannot be imported: SyntaxError.*bad\.py, line 2"),
        ("x = 1\n1 / 0", r"ZeroDivisionError: division by zero\. See .*bad\.py, line 2\."),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        (b"x = '\xff'", r"cannot be imported: SyntaxError.*bad\.py"),
        (b"x = 1\0", r"cannot be imported: (SyntaxError|ValueError)"),
    ],
)
def test_a_broken_file_is_told_with_its_line(own: Path, source: str | bytes, reason: str) -> None:
    (own / "bad.py").write_bytes(source.encode() if isinstance(source, str) else source)
    for _ in range(2):  # the first failure leaves nothing behind
        with pytest.raises(UserError, match=reason) as caught:
            load_own("./bad.py")
        assert (caught.value.field, caught.value.value) == ("env", "./bad.py")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("./nowhere.py", "nowhere.py cannot be read: No such file or directory"),
        ("./words", "a path that is not a Python file's"),
        ("./my_protocol", "a path that is not a Python file's"),
        ("folder.py", "a path that is not a Python file's"),
    ],
)
def test_a_path_without_a_file_is_told(own: Path, path: str, reason: str) -> None:
    (own / "folder.py").mkdir()
    with pytest.raises(UserError, match=reason):
        load_own(path)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--prompts", "./nowhere"), "no such folder"),
        (("--prompts", "terse"), "which has no styles. Name the folder"),
        (("--prompts", "./my_protocol.py"), "no such folder"),
    ],
)
def test_prompts_that_are_not_there_are_told(own: Path, flags: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        train(read_request([*SHORT, *FLAGS, *flags]))


def test_a_protocol_of_ones_own_is_rehearsed_before_a_run(own: Path) -> None:
    broken = (own / "my_protocol.py").read_text().replace("return Parsed(", "return dict(")
    (own / "my_protocol.py").write_text(broken)
    with pytest.raises(UserError, match=r"Single.parse = \{.*is not a Parsed"):
        train(read_request([*SHORT, *FLAGS, "--output-dir", "out"]))
    assert not (own / "out").exists()


def test_two_files_of_one_name_are_not_compared(own: Path) -> None:
    (own / "other").mkdir()
    shutil.copy("my_credit.py", "other/my_credit.py")
    with pytest.raises(UserError, match="named twice"):
        comparison_requests([*FLAGS, "--compare", "other/my_credit.py"])


def test_a_run_keeps_its_plug_ins_when_it_is_moved(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = read_request([*SHORT, *FLAGS, "--output-dir", "out", "--training.steps", "1", "--data.eval_size", "4"])
    train(request)
    saved = yaml.safe_load((own / "out" / "config.yaml").read_text())
    assert saved["env"].startswith("plugins/")
    assert str(own) not in (own / "out" / "config.yaml").read_text()
    moved = own / "elsewhere" / "moved"
    moved.parent.mkdir()
    (own / "out").rename(moved)
    for name in ("my_protocol.py", "my_credit.py"):
        (own / name).unlink()
    shutil.rmtree(own / "words")
    monkeypatch.chdir(moved.parent)
    found = read_run(Path("moved"))
    assert found.label == "my-credit"
    assert type(found.config.protocol) is type(request.config.protocol)
    assert load_prompts(found.config.env, found.config.prompts).texts["attempt"] == "Solve."
    assert report_run(Path("moved")).exists()
    again = read_config(str(moved / "config.yaml")).model_copy(update={"output_dir": str(moved)})
    train(RunRequest(again, "resume"))


def test_resuming_with_a_changed_file_is_a_changed_config(own: Path) -> None:
    config = config_of("--output-dir", "out")
    RunDir.create(config)
    RunDir.check(config_of("--output-dir", "out"), "resume")
    (own / "my_protocol.py").write_text((own / "my_protocol.py").read_text() + "\n# changed\n")
    changed = config_of("--output-dir", "out")
    with pytest.raises(UserError, match=r"its config differs .*env: 'plugins/.*my_protocol\.py' →"):
        RunDir.check(changed, "resume")
    RunDir.create(changed, "resume", accept_changes=True)
    assert read_config("out/config.yaml").resolved() == changed.resolved()


def test_a_changed_prompt_is_a_changed_config(own: Path) -> None:
    before = config_of()
    place = before.resolved()["prompts"]
    load_prompts(before.env, before.prompts)
    (own / "words" / "attempt.md").write_text("Solve it.\n")
    load_prompts(before.env, before.prompts)
    assert config_of().resolved()["prompts"] != place
