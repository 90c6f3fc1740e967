"""Environments of OpenEnv as ours: `pip install 'backtrack-mrt[openenv]'`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.foreign.source import MOST_TASKS, Played, source

pytest.importorskip("openenv.core.env_server.interfaces", reason="pip install 'backtrack-mrt[openenv]'")

MODULE = '''
import random
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

class Say(Action):
    message: str

class Move(Action):
    row: int
    column: int

class Heard(Observation):
    text: str

class Board(Observation):
    low: int
    high: int

class Echo(Environment[Say, Heard, State]):
    """Says a word; paid for saying it again."""
    def reset(self, seed=None, episode_id=None, **kwargs):
        self.word = random.Random(seed).choice(["river", "stone", "cloud"])
        return Heard(text=f"Say {self.word}.")
    def step(self, action, timeout_s=None, **kwargs):
        return Heard(text="", done=True, reward=float(action.message.strip() == self.word))
    @property
    def state(self):
        return State()

class Guess(Environment[Say, Board, State]):
    """A number between two that come closer; half a point for each good guess."""
    def reset(self, seed=None, episode_id=None, **kwargs):
        self.secret, self.low, self.high = random.Random(seed).randint(1, 8), 1, 8
        return Board(low=1, high=8)
    def step(self, action, timeout_s=None, **kwargs):
        guess = int(action.message)
        if guess == self.secret:
            return Board(low=guess, high=guess, done=True, reward=0.5)
        self.low, self.high = (guess + 1, self.high) if guess < self.secret else (self.low, guess - 1)
        return Board(low=self.low, high=self.high, reward=0.25)
    @property
    def state(self):
        return State()

class Moves(Environment[Move, Board, State]):
    def reset(self, seed=None, episode_id=None, **kwargs): return Board(low=0, high=0)
    def step(self, action, timeout_s=None, **kwargs): return Board(low=0, high=0)
    @property
    def state(self): return State()
'''


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their module, as if it were installed."""
    (tmp_path / "oe_games.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "oe_games", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_single_step() -> None:
    echo = source("openenv:oe_games:Echo")
    assert echo.tasks() == MOST_TASKS
    said = echo.play(0, ()).said
    assert said.startswith("Say ")
    assert echo.play(0, [said.removeprefix("Say ").rstrip(".")]) == Played(None, 1.0)
    assert echo.play(0, ["no"]) == Played(None, 0.0)


def test_several_steps() -> None:
    guess = source("openenv:oe_games:Guess")
    assert guess.play(0, ()).said == '{"low": 1, "high": 8}'
    secret = next(n for n in range(1, 9) if guess.play(0, [str(n)]).said is None)
    wrong = 1 if secret != 1 else 8
    assert guess.play(0, [str(wrong)]).reward == 0.25
    assert guess.play(0, [str(wrong), str(secret)]) == Played(None, 0.75)


def test_one_flag_names_protocol_grader_and_problems() -> None:
    config = read_request(["--env", "openenv:oe_games:Echo", "--data.eval_size", "8"]).config
    assert (config.grader, config.data.eval) == ("openenv:oe_games:Echo", ["openenv:oe_games:Echo"])
    assert config.run_path.name == "openenv-oe_games-Echo-mrt-rl-seed0"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("oe_games:Moves", "an action of its kind must be given: row, column"),
        ("oe_games:Say", "Say is no OpenEnv Environment"),
        ("oe_games:Nobody", "it cannot be imported"),
        ("nowhere_to_be_found:Echo", "it cannot be imported"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_request(["--env", f"openenv:{name}"])
