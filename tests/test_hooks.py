"""What a plug-in's class says in place of its base's is told at once if it cannot take that place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.short_runs import SHORT

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.rollouts.spelling import Speller
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Problem

BASES: Mapping[str, tuple[str, type]] = {
    "algo": ("backtrack_mrt.algos", Algorithm),
    "env": ("backtrack_mrt.envs", EpisodeProtocol),
    "grader": ("backtrack_mrt.graders", Grader),
    "prover.estimator": ("backtrack_mrt.provers", MetaProver),
}
PROBLEM = Problem("p", "6 · 7", "42")
HEAD = "from typing import ClassVar\nimport backtrack_mrt as bt\nclass Own(bt.{}):\n    "
WEIGHTS = "\n    def turn_weights(self, group): return [[1.0] * len(m.trajectory.turns) for m in group.members]\n"
JUDGE = "\n    def judge(self, problem, answer): return 1.0\n"
VALUES = "\n    def prefix_values(self, prefixes): return [0.5] * len(prefixes)\n"
VALUES += "    def answer_tokens(self, problem): return 4\n"
PLAYS = "\n    max_turns: ClassVar[int] = 1\n    def parse(self, phase, text, turns): return bt.Parsed()\n"
PLAYS += "    def next_turn(self, problem, turns): return bt.TurnSpec('attempt', 8)\n"
COLLECTION = """
from dataclasses import dataclass
from backtrack_mrt.algos.collecting import Collection
from backtrack_mrt.algos.grpo import Grpo

class Own(Grpo):
    @property
    def collection(self): return Mine()

@dataclass(frozen=True)
class Mine(Collection):
    def collect(self, play, problems, seeds): return play.rollout(problems, seeds)"""
WRONG = [
    ("algo", "loss: ClassVar[str] = 'ppo'" + WEIGHTS, r"Own.loss is 'ppo': input should be 'rl' or 'ce'\. The default"),
    ("algo", "unit: float = 0.5" + WEIGHTS, "Own.unit is 0.5: input should be 'token', 'turn' or 'trajectory'"),
    ("algo", "weigh: bool = True" + WEIGHTS, "Own.weigh is a setting by the name of something else"),
    ("algo", "def needs_values(self): return True" + WEIGHTS, r"Own.needs_values is a method.*Write @property"),
    (
        "algo",
        "def objection(self): return None" + WEIGHTS,
        r"Own.objection cannot be called.*\(self, \*, max_answers, group",
    ),
    ("algo", "async def turn_weights(self, group): return []", "Own.turn_weights is asynchronous"),
    ("grader", "marker = 'line'" + JUDGE, r"Own.marker is 'line'.*The default is BOXED\."),
    (
        "grader",
        "def judge(self, answer, problem): return 1.0",
        r"Own.judge takes answer in another place.*problem, answer",
    ),
    ("grader", "async def judge_many(self, asked): return []" + JUDGE, "Own.judge_many is asynchronous"),
    ("env", PLAYS.replace("max_turns: ClassVar[int]", "max_turns: int"), "Own.max_turns is a setting by the name"),
    ("env", PLAYS + "    phases: ClassVar[list[str]] = ['attempt']", r"Own.phases is \['attempt'\].*dictionary"),
    ("env", PLAYS + "    def cuts(self): return []", r"Own.cuts cannot be called.*Write def cuts\(self, text\)"),
    (
        "prover.estimator",
        "def __init__(self, dialogue, engine): pass" + VALUES,
        "Own.__init__ cannot be called: too many",
    ),
]
RIGHT = [
    ("algo", "needs_values = True\n    summary = 'mine'\n    alpha: float = 1.0" + WEIGHTS),
    ("algo", "unit: ClassVar[str] = 'turn'\n    def objection(self, **known): return None" + WEIGHTS),
    ("algo", "@property\n    def needs_values(self): return True" + WEIGHTS),
    ("grader", "@staticmethod\n    def judge(*asked): return 1.0"),
    ("grader", "def judge(self, p, a, strict=False): return 1.0"),
    ("env", PLAYS + "    token_budget: int = 64\n    phases: ClassVar[dict[str, str]] = {'attempt': 'a solution'}"),
    ("prover.estimator", "def __init__(self, *args): super().__init__(*args)" + VALUES),
]


def own(folder: Path, field: str, body: str) -> str:
    file = folder / "own.py"
    file.write_text(HEAD.format(BASES[field][1].__name__) + body)
    return str(file)


@pytest.mark.parametrize(("field", "body", "told"), WRONG)
def test_what_cannot_take_its_place_is_told(tmp_path: Path, field: str, body: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        plugins.load(BASES[field][0], own(tmp_path, field, body), BASES[field][1], field)


@pytest.mark.parametrize(("field", "body"), RIGHT)
def test_what_can_is_taken(tmp_path: Path, field: str, body: str) -> None:
    assert plugins.load(BASES[field][0], own(tmp_path, field, body), BASES[field][1], field).__name__ == "Own"


@pytest.mark.parametrize(
    ("field", "body", "line"),
    [
        ("algo", "def turn_weights(self, group): return [m.rewards for m in group.members]", 4),
        ("prover.estimator", VALUES.replace("[0.5] * len(prefixes)", "self.model(prefixes)"), 5),
        ("grader", "def judge_many(self, asked): raise SystemExit('no server')" + JUDGE, 4),
    ],
)
def test_what_a_plug_in_raises_in_a_run_is_one_line(tmp_path: Path, field: str, body: str, line: int) -> None:
    flags = [f"--{field}", own(tmp_path, field, body), "--data.eval_size", "2", "--output-dir", str(tmp_path / "run")]
    told = rf"^{field} = 'Own': its \w+ raised \w+: .*\. See .*own.py, line {line}\.$"
    with pytest.raises(UserError, match=told):
        train(read_request([*SHORT, *flags]))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("[:1]", r"algo = 'Mine': its collect gave 1 trajectories for 16 rows.*where the loss is rl"),
        (" and None", "algo = 'Mine': its collect gave None, which is no trajectory"),
    ],
)
def test_a_collection_gives_a_trajectory_for_each_row(tmp_path: Path, body: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(COLLECTION + body)
    flags = ["--algo", str(tmp_path / "mine.py"), "--data.eval_size", "2", "--output-dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=told):
        train(read_request([*SHORT, *flags]))


def test_a_critic_wants_values(tmp_path: Path) -> None:
    algo = own(tmp_path, "algo", "needs_critic: ClassVar[bool] = True" + WEIGHTS)
    with pytest.raises(UserError, match=r"needs_critic.*Set needs_values to True"):
        read_request([*SHORT, "--algo", algo])


def test_an_estimator_begins_as_its_base_does(tmp_path: Path) -> None:
    file = own(tmp_path, "prover.estimator", "def __init__(self, *args): pass" + VALUES)
    parts = assemble(read_request([*SHORT, "--prover.estimator", file]).config)
    with pytest.raises(UserError, match=r"leaves out the base's\. Begin it with super\(\).__init__\(dialogue, engine"):
        parts.prover()


@pytest.mark.parametrize("given", [[1.0], None, iter([])])
def test_several_answers_are_all_judged(given: Any) -> None:
    class Own(Grader):
        def judge(self, problem: Problem, answer: str) -> float:
            return 1.0

        def judge_many(self, asked: Any) -> Any:
            return given

    with pytest.raises(UserError, match=r"grader = 'Own': its judge_many gave .* for 2 answers"):
        Own().grade_many([(PROBLEM, "1"), (PROBLEM, "2")])


@pytest.mark.parametrize("given", ["42", (), None, (42,)])
def test_right_answers_are_listed_in_texts(given: Any) -> None:
    with pytest.raises(UserError, match=r"grader = .*these are its spellings of '42'.*tuple of texts"):
        Speller(ByteChat(), "\\boxed{", lambda problem: given).spellings(PROBLEM)


def test_a_setting_that_its_class_sets_itself(tmp_path: Path) -> None:
    grader = own(tmp_path, "grader", "def __init__(self):\n        self.cache = {}" + JUDGE)
    with pytest.raises(UserError, match=r"its __init__ sets cache, and an instance is frozen\. Write `cache: TYPE"):
        read_request([*SHORT, "--grader", grader])


def test_what_others_raise_stays_as_it_is() -> None:
    with pytest.raises(KeyError), plugins.failures_told():
        raise KeyError("mine")
