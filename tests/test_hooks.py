"""What a plug-in's class says in place of its base's is told at once if it cannot take that place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.short_runs import SHORT

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.rollouts.spelling import Speller
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Problem, Trajectory

pytestmark = pytest.mark.usefixtures("no_reports")

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
    ("algo", "def weigh(self, group): return None" + WEIGHTS, r"Own.weigh is not to be replaced.*asked for is turn_w"),
    ("algo", "alpha: 'Share' = 1" + WEIGHTS, "Own has a setting of a type that is not known: Share"),
    ("env", PLAYS + "    token_budget: int = 0", "Own.token_budget is 0: input should be greater than 0"),
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


GIVING = "@property\n    def {}(self): return {}\n"
UNHEARD = """
from dataclasses import dataclass
from backtrack_mrt.algos.collecting import Collection

@dataclass(frozen=True)
class Unheard(Collection):
    def collect(self, problems): return []
"""


@pytest.mark.parametrize(
    ("field", "body", "told"),
    [
        (
            "algo",
            GIVING.format("collection", "None") + WEIGHTS,
            r"Own.collection is None: input should be an instance of Collection\. The default is Independent\(\)",
        ),
        ("algo", GIVING.format("collection", "Unheard") + WEIGHTS + UNHEARD, "Own.collection is <class .*Unheard'>"),
        ("algo", GIVING.format("collection", "Unheard()") + WEIGHTS + UNHEARD, "Unheard.collect cannot be called: too"),
        ("algo", GIVING.format("loss", "'ppo'") + WEIGHTS, "Own.loss is 'ppo': input should be 'rl' or 'ce'"),
        ("algo", GIVING.format("needs_values", "None") + WEIGHTS, "Own.needs_values is None.*boolean.*is False"),
        ("algo", GIVING.format("needs_critic", "1 / 0") + WEIGHTS, "its needs_critic raised ZeroDivisionError.*line 5"),
        ("algo", "def objection(self, **_): return True" + WEIGHTS, r"its objection gave True\. Return str \| None"),
        ("algo", "def objection(self, **_): return 1 / 0" + WEIGHTS, "its objection raised ZeroDivisionError.*line 4"),
        ("grader", GIVING.format("marker", "'line'") + JUDGE, "Own.marker is 'line'"),
        ("env", PLAYS.replace("max_turns: ClassVar[int] = 1", GIVING.format("max_turns", "None")), "Return int"),
    ],
)
def test_what_its_properties_give_is_told_with_the_config(tmp_path: Path, field: str, body: str, told: str) -> None:
    flags = [*SHORT, f"--{field}", own(tmp_path, field, body)]
    with pytest.raises(UserError, match=told):
        read_request(flags)


@pytest.mark.parametrize(
    ("hook", "ask"),
    [
        ("check_gold(self, gold)", lambda grader: grader.refusal("42")),
        ("evaluating(self)", lambda grader: grader.counting()),
        ("standing(self, problem, turns)", lambda grader: Known(grader).values([Trajectory(PROBLEM, (1,))])),
    ],
)
def test_what_a_grader_gives_is_of_its_kind(tmp_path: Path, hook: str, ask: Callable[[Grader], Any]) -> None:
    body = f"def {hook}: return 5" + JUDGE
    grader: Any = plugins.load(BASES["grader"][0], own(tmp_path, "grader", body), Grader, "grader")
    with pytest.raises(UserError, match=rf"grader = 'Own': its {hook.partition('(')[0]} gave 5\. Return"):
        ask(grader())


class Known(MetaProver):
    """Knows nothing of a model."""

    def __init__(self, grader: Grader) -> None:
        super().__init__(Dialogue(ByteChat(), load_prompts("backtrack", "terse")), ScriptedEngine([]))
        self.grader = grader

    def prefix_values(self, prefixes: Sequence[Any]) -> Any:
        return np.zeros(len(prefixes))

    def answer_tokens(self, problem: Problem) -> int:
        return 1


@pytest.mark.parametrize(
    ("field", "base", "body"),
    [
        ("algo", Algorithm, GIVING.format("collection", "None") + WEIGHTS),
        ("grader", Grader, "listed = property(id)" + JUDGE),
    ],
)
def test_so_are_those_of_plug_ins_outside_of_runs(tmp_path: Path, field: str, base: type, body: str) -> None:
    found: Any = plugins.load(BASES[field][0], own(tmp_path, field, body), base, field)
    with pytest.raises(UserError, match=rf"{field} = 'Own': Own\.\w+ is"):
        plugins.configured(found, {}, field, base)


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
        ("[::-1]", "algo = 'Mine': its collect gave 16 trajectories for 16 rows, or those of other problems"),
    ],
)
def test_a_collection_gives_a_trajectory_for_each_row(tmp_path: Path, body: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(COLLECTION + body)
    flags = ["--algo", str(tmp_path / "mine.py"), "--data.eval_size", "2", "--output-dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=told):
        train(read_request([*SHORT, *flags]))


@pytest.mark.parametrize(
    ("field", "section", "body"),
    [
        ("env", "protocol", PLAYS.replace("max_turns: ClassVar[int] = 1", "MAX")),
        (
            "algo",
            "algorithm",
            "size: int = 1\n    @property\n    def needs_values(self): return self.size > 1" + WEIGHTS,
        ),
    ],
)
def test_a_wrong_value_of_its_setting_is_told_by_its_flag(tmp_path: Path, field: str, section: str, body: str) -> None:
    """Its properties read the setting, which is not there then: that is no mistake of theirs."""
    turns = "size: int = 1\n    @property\n    def max_turns(self): return self.size"
    file = own(tmp_path, field, body.replace("MAX", turns))
    prompts = ["--prompts", "backtrack/terse"] if field == "env" else []
    with pytest.raises(UserError, match=rf"^--{section}\.size \(command line\) = 'x': input should be a valid int"):
        read_request([f"--{field}", file, f"--{section}.size", "x", *prompts])


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
        Speller(Dialogue(ByteChat(), load_prompts("backtrack", "terse")), lambda problem: given).spellings(PROBLEM)


def test_a_setting_that_its_class_sets_itself(tmp_path: Path) -> None:
    grader = own(tmp_path, "grader", "def __init__(self):\n        self.cache = {}" + JUDGE)
    with pytest.raises(UserError, match=r"its __init__ sets cache, and an instance is frozen\. Write `cache: TYPE"):
        read_request([*SHORT, "--grader", grader])


def test_what_others_raise_stays_as_it_is() -> None:
    with pytest.raises(KeyError), plugins.failures_told():
        raise KeyError("mine")
