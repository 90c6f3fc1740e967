"""What the README tells users to write works as it stands there: one file each, plus prompts."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import backtrack_mrt.algos
import backtrack_mrt.envs
from backtrack_mrt.cli.request import load_config
from backtrack_mrt.env import EpisodeEnv
from backtrack_mrt.rollouts import prompts as prompting
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Problem

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"`(?:envs/)?(\w+)\.py`.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
PROMPTS = {
    "question": "<<question>>\n<<instruction>>",
    "attempt": "Solve.",
    "look_again": "Check.\nSolve.",
    "force": "Answer.",
    "force_prefix": "\\boxed{",
}


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The README's files, as if they lay in the repository's folders."""
    (tmp_path / "prompts" / "terse").mkdir(parents=True)
    for name, text in PROMPTS.items():
        (tmp_path / "prompts" / "terse" / f"{name}.md").write_text(text + "\n")
    root = prompting._root
    monkeypatch.setattr(prompting, "_root", lambda name: tmp_path / "prompts" if name == "second-look" else root(name))
    for package, (name, source) in zip((backtrack_mrt.algos, backtrack_mrt.envs), BLOCKS, strict=True):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / package.__name__.split(".")[1])])
        (tmp_path / package.__name__.split(".")[1]).mkdir()
        (tmp_path / f"{name}.py").rename(tmp_path / package.__name__.split(".")[1] / f"{name}.py")
    importlib.invalidate_caches()
    yield
    for name in ("backtrack_mrt.algos.equal_progress", "backtrack_mrt.envs.second_look"):
        sys.modules.pop(name, None)


def test_they_are_short() -> None:
    assert [name for name, _ in BLOCKS] == ["equal_progress", "second_look"]
    assert all(len(source.splitlines()) < 40 for _, source in BLOCKS)


def test_the_protocol_can_be_played(plugged_in: None) -> None:
    from backtrack_mrt.envs.second_look import SecondLook  # type: ignore[import-not-found]

    problem = Problem("p", "1 + 1", "2")
    env = EpisodeEnv(SecondLook(), [problem], load_prompts("second-look", "terse"))
    assert env.reset()[0] == "1 + 1\nSolve."
    assert env.step("\\boxed{3}")[:2] == ("Check.\nSolve.", 0.0)
    assert env.step("\\boxed{2}")[:3] == ("", 1.0, True)
    env.reset()
    assert env.step("two")[4]["violation"] == "missing_answer"


def test_both_train(plugged_in: None, tmp_path: Path) -> None:
    flags = ["--algo", "equal-progress", "--env", "second-look", "--output-dir", str(tmp_path / "run")]
    short = ["--training.steps", "2", "--training.problems_per_step", "4", "--training.group_size", "4"]
    train(load_config([*flags, *short, "--training.micro_batch_size", "8", "--data.eval_size", "8"]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["grad_norm"] > 0 for row in rows)
