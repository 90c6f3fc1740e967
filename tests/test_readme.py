"""What README and the cookbooks tell users to write works as it stands there: one file each, plus prompts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from support.command_line import command
from support.documents import blocks, files_in, first_cells, section, text_of
from support.hand_worked import CORRECTED
from support.short_runs import SHORT

from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import RunRequest
from backtrack_mrt.env import EpisodeEnv, make
from backtrack_mrt.plugins import load
from backtrack_mrt.protocol import EpisodeProtocol, Share
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Completion, Finish, Group, Problem, Scored

PLUGINS = files_in("README.md") | files_in("docs/protocols.md") | files_in("docs/algorithms.md")
COMMON = {"question": "<<question>>\n<<instruction>>", "force": "Answer.", "force_prefix": "\\boxed{"}
PROMPTS = {
    "second_look": COMMON | {"attempt": "Solve.", "look_again": "Check.\nSolve."},
    "choose": dict(
        re.findall(r"^\| `(\w+)\.md` \| `(.+)` \|$", section("docs/protocols.md", "A whole one"), re.MULTILINE)
    ),
    "until_sure": COMMON | {"attempt": "Solve.", "again": "Sure?"},
    "paragraphs": COMMON | {"think": "Solve."},
}
PROBLEM = Problem("p", "1 + 1", "2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that are shown."""
    for name, source in PLUGINS.items():
        (tmp_path / name).write_text(source)
    for folder, prompts in PROMPTS.items():
        (tmp_path / folder).mkdir()
        for name, prompt in prompts.items():
            (tmp_path / folder / f"{name}.md").write_text(prompt + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def env_of(name: str) -> EpisodeEnv:
    return make(f"./{name}.py", [PROBLEM], prompts=f"./{name}")


def test_they_are_short() -> None:
    shown = files_in("README.md")
    assert list(shown) == ["equal_progress.py", "second_look.py", "palindrome.py"]
    assert all(len(source.splitlines()) < 40 for source in shown.values())
    assert len(shown["palindrome.py"].splitlines()) <= 20


def test_second_look_can_be_played(here: Path) -> None:
    env = env_of("second_look")
    assert env.reset()[0] == "1 + 1\nSolve."
    assert env.step("\\boxed{3}")[:2] == ("Check.\nSolve.", 0.0)
    assert env.step("\\boxed{2}")[:3] == ("", 1.0, True)
    env.reset()
    assert env.step("two")[4]["violation"] == "missing_answer"


@pytest.mark.parametrize("name", PROMPTS)
def test_they_pass_the_check(here: Path, name: str) -> None:
    checked = command("check-env", f"./{name}.py", "--prompts", f"./{name}", "--reply", "Draft 2", "--reply", "Sure.")
    assert checked.returncode == 0, checked.stderr
    assert f"phases played: {', '.join(sorted({*PROMPTS[name]} - {*COMMON}))};" in checked.stdout


def test_choose_can_be_played(here: Path) -> None:
    env = env_of("choose")
    assert env.reset()[0] == "1 + 1 Draft 1:"
    env.step("\\boxed{2}")
    assert env.step("\\boxed{3}")[0] == 'Which draft? Answer "Draft N".'
    _, reward, ended, _, info = env.step("Draft 1.")
    assert (reward, ended, info["answer"]) == (1.0, True, "2")
    assert env.protocol.metrics(env.trajectory) == {"drafts_differ": 1.0, "right_draft_chosen": Share(1.0, 1.0)}
    assert env.protocol.moves(env.trajectory) == {"choice": [range(2, 3)]}
    env.reset()
    env.step("\\boxed{2}")
    env.step("\\boxed{3}")
    assert env.step("Draft 3")[4]["violation"] == "no_choice"
    assert env.protocol.with_answers(1).max_answers == 2
    assert env.protocol.prolonged(2).max_answers == 5


def test_until_sure_can_be_played(here: Path) -> None:
    env = env_of("until_sure")
    env.reset()
    assert env.step("\\boxed{3}")[0] == "Sure?"
    env.step("\\boxed{2}")
    assert env.step("Sure.")[1:3] == (1.0, True)
    doubted = EpisodeEnv(
        env.protocol.persistent(1).with_answers(2), [PROBLEM], load_prompts("until-sure", "./until_sure")
    )
    doubted.reset()
    doubted.step("\\boxed{3}")
    assert doubted.step("Sure.")[0] == "Sure?"
    assert doubted.step("\\boxed{2}")[4]["stop"] == "turn_limit"


def test_paragraphs_are_cut(here: Path) -> None:
    env = env_of("paragraphs")
    env.reset()
    assert list(env.protocol.cuts("One.\n\nTwo.\n\n\nThree.\n\n")) == [6, 13]
    piece = Completion(tuple(b"One.\n\n"), (-1.0,) * 6, Finish.CUT)
    assert env.step(piece)[:2] == ("", 0.0)
    assert env.step("So \\boxed{2}")[1] == 1.0


def test_the_verifier_trains(here: Path) -> None:
    flags = ["--grader", "./palindrome.py", "--output-dir", "run", "--training.steps", "1", "--data.eval_size", "8"]
    config = read_request([*SHORT, *flags, "--prover.samples", "2"]).config
    assert config.grading.grade(Problem("p", "?", "n"), "Anna").reward == 0.4
    train(RunRequest(config))
    alarms = json.loads(Path("run/alarms.json").read_text())
    assert alarms.keys() == {"no likelihood"}
    assert "so V is the mean reward of 2 sampled answers and none is trained along" in alarms["no likelihood"]
    assert "Alarm: right answers cannot be listed" in Path("run/report.html").read_text()


@pytest.mark.parametrize(("algo", "protocol"), [("equal_progress", "second_look"), ("late_bonus", "choose")])
def test_they_train(here: Path, algo: str, protocol: str) -> None:
    flags = ["--algo", f"./{algo}.py", "--env", f"./{protocol}.py", "--prompts", f"./{protocol}", "--output-dir", "run"]
    size = ["--training.steps", "2", "--data.eval_size", "8", "--evaluation.extra_revisions", "1"]
    train(read_request([*SHORT, *flags, *size]))
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert protocol == "choose" or all(row["grad_norm"] > 0 for row in rows)  # nobody taught the model to choose


def test_the_weights_of_the_cookbook(here: Path) -> None:
    wrong = replace(CORRECTED, turns=CORRECTED.turns[:1], outcome=0.0, answer="1")
    longer = replace(CORRECTED, turns=(*CORRECTED.turns, CORRECTED.turns[-1]))
    members = tuple(Scored(t, np.linspace(0.0, 1.0, len(t.turns) + 1)) for t in (wrong, longer, CORRECTED))
    group = Group(CORRECTED.problem, members)
    assert [weights.tolist() for weights in algorithm("shortest").turn_weights(group)] == [[0], [0] * 6, [1] * 5]
    late = algorithm("late_bonus").turn_weights(group)
    assert late[2] == pytest.approx(1 / 3 + 0.5 * np.arange(1, 6) / 5)


def test_a_way_of_collecting(here: Path) -> None:
    calls = []
    play = SimpleNamespace(rollout=lambda *starts, **settings: calls.append((starts, settings)))
    algorithm("first_answers").collection.collect(play, [PROBLEM], [0])  # type: ignore[arg-type]
    assert calls == [(([PROBLEM], [0]), {"answers": 1})]


def algorithm(name: str) -> Algorithm:
    return load("backtrack_mrt.algos", f"./{name}.py", Algorithm, "algo")()  # type: ignore[type-abstract]


def test_the_environment_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in blocks("docs/protocols.md", "python") if "gymnasium.make" in block]
    exec(compile(block, "docs/protocols.md", "exec"), {})
    assert "## Step 1: +1 +2 = 3;" in capsys.readouterr().out
    assert "backtrack_mrt/Backtrack-v0" in gymnasium.registry


@pytest.mark.parametrize(
    ("document", "heading", "base"),
    [("docs/protocols.md", "The hooks", EpisodeProtocol), ("docs/algorithms.md", "The seam", Algorithm)],
)
def test_every_hook_is_documented(document: str, heading: str, base: type) -> None:
    told = {name.partition("(")[0] for name in first_cells(section(document, heading))}
    inner = {"model_config", "model_post_init", "weigh", "weigh_batch"}  # pydantic's; what the trainers call
    inner |= {"marked", "marked_by", "find_answer"}  # for the hooks
    assert {name for name in vars(base) if not name.startswith("_")} - inner <= told | {"summary"}


def test_every_prompt_of_the_cookbook_is_read(here: Path) -> None:
    assert set(load_prompts("choose", "./choose").texts) == {"question", "draft", "choose", "force", "force_prefix"}
    assert "`close.md`" in text_of("docs/protocols.md")
