"""What each grader pays for, and the seam: one method, any reward, found by name or path, the marker of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtrack_mrt import plugins
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.env import make
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading import Verdict
from backtrack_mrt.grading.markers import BOXED, FENCE, LINE, MARKERS
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts, styles
from backtrack_mrt.types import Problem

OWN = """
from backtrack_mrt.graders.base import Grader

class Palindrome(Grader):
    summary = "any palindrome with the gold in it, longer ones better"

    def judge(self, problem, answer):
        if answer == "bug":
            raise ValueError("no such answer")
        if answer == "two":
            return 2.0
        return min(len(answer) / 10, 1.0) if answer == answer[::-1] and problem.answer in answer else False
"""
ANIMALS = "Which one barks?\nA) a cat\nB) a dog\nC) a cow"
CASES = [  # grader, question, gold, answer, reward
    ("math", "", "1/2", "0.5", 1),
    ("math", "", "cat", "act", 0),
    ("math", "", "Paris", "paris", 1),
    ("exact", "", "New York", " new  york. ", 1),
    ("exact", "", "New York", "**New York**", 1),
    ("exact", "", "cat", "act", 0),
    ("exact", "", "rat", "tar", 0),
    ("exact", "", "A", "a", 1),
    ("exact", "", "1/2", "0.5", 0),
    ("exact", "", "straße", "STRASSE", 1),
    ("choice", ANIMALS, "B", "B", 1),
    ("choice", ANIMALS, "B", "(b)", 1),
    ("choice", ANIMALS, "B", "B) a dog", 1),
    ("choice", ANIMALS, "B", "a dog", 1),
    ("choice", ANIMALS, "B) a dog", "B.", 1),
    ("choice", ANIMALS, "a dog", "B", 1),
    ("choice", ANIMALS, "B", "A) a dog", 0),
    ("choice", ANIMALS, "B", "B) a cat", 0),
    ("choice", ANIMALS, "B", "A or B", 0),
    ("choice", ANIMALS, "B", "a bird", 0),
    ("choice", "options stand elsewhere", "B", "B", 1),
    ("choice", "options stand elsewhere", "B", "C", 0),
    ("exact", "", "don't", "don’t", 1),
    ("exact", "", ".5", "5", 0),
    ("number", "", "9.81", "9.8", 1),
    ("number", "", "9.81", "x = 9.8", 1),
    ("number", "", "9.81", "9", 0),
    ("number", "", "0", "0.0", 1),
    ("number", "", "0", "0.1", 0),
    ("number", "", "5 kg", "5 cm", 0),
    ("number", "", "100", "about a hundred", 0),
    ("countdown", "", "(8-5)*9", "9*(8-5)", 1),
    ("countdown", "", "(8-5)*9", r"9 \times (8 - 5) = 27", 1),
    ("countdown", "", "(8-5)*9", "27", 0),
    ("countdown", "", "(8-5)*9", "3*9", 0),
    ("countdown", "", "(8-5)*9", "8*9-5*9", 0),
    ("countdown", "", '{"numbers": [4, 6], "target": 1.5}', r"\frac{6}{4}", 1),
    ("countdown", "Using the numbers [44, 19, 35], create an equation that equals 98.", "98", "44+19+35", 1),
    ("countdown", "Using the numbers [44, 19, 35], create an equation that equals 98.", "98", "98", 0),
    ("countdown", "", "8*9", "9**8", 0),
    ("countdown", "", "8*9", "__import__('os')", 0),
    ("countdown", "", "8/2-4", "4/(8/2-4)", 0),
]


def grader_named(name: str, **settings: object) -> Grader:
    return plugins.load("backtrack_mrt.graders", name, Grader, "grader")(**settings)  # type: ignore[type-abstract]


@pytest.mark.parametrize(("name", "question", "gold", "answer", "reward"), CASES)
def test_what_is_paid(name: str, question: str, gold: str, answer: str, reward: float) -> None:
    with grader_named(name) as grader:
        assert grader.check_gold(gold) is None
        assert grader.grade(Problem("p", question, gold), answer).reward == reward


@pytest.mark.parametrize(("name", "gold"), [("math", "1/2"), ("exact", "Paris"), ("choice", "B"), ("number", "0.5")])
def test_all_listed_spellings_are_right(name: str, gold: str) -> None:
    problem = Problem("p", ANIMALS, gold)
    with grader_named(name) as grader:
        assert grader.listed
        assert {grader.grade(problem, spelling).reward for spelling in grader.spellings(problem)} == {1.0}


@pytest.fixture
def own(tmp_path: Path) -> Grader:
    (tmp_path / "palindrome.py").write_text(OWN)
    return grader_named(str(tmp_path / "palindrome.py"))


def test_a_file_of_ones_own_pays_real_rewards_and_cannot_break_a_run(own: Grader) -> None:
    problem = Problem("p", "?", "n")
    grades = own.grade_many([(problem, answer) for answer in ("anna", "x", None, "x", "amanaplanacanalpanama")])
    assert [grade.reward for grade in grades] == [0.4, 0, 0, 0, 1]
    with pytest.warns(UserWarning, match=r"Palindrome failed on the answer 'bug'.* See .*palindrome.py, line \d+\."):
        assert own.grade(problem, "bug").verdict is Verdict.UNPARSABLE
    assert own.grade(problem, "bug").reward == 0  # told once
    assert own.counts[Verdict.PARTIAL] == 1
    with pytest.raises(UserError, match=r"its judge gave 2\.0"):
        own.grade(problem, "two")


def test_a_grader_that_counts_in_a_setting_is_told_where_to(tmp_path: Path) -> None:
    counting = "n: int = 0\n    def judge(self, problem, answer):\n        self.n += 1\n        return 1.0\n"
    (tmp_path / "counting.py").write_text(f"import backtrack_mrt as bt\nclass Counting(bt.Grader):\n    {counting}")
    with pytest.warns(
        UserWarning, match=r"counting.py, line 5\. An instance is frozen: what it keeps is a pydantic.Priv"
    ):
        grader_named(str(tmp_path / "counting.py")).grade(Problem("p", "?", "n"), "x")


def test_the_environment_pays_what_the_grader_says(own: Grader) -> None:
    for grade in (own, own.judge):
        env = make("single", [Problem("p", "?", "n")], grade=grade)
        env.reset(seed=0)
        assert env.step(r"\boxed{anna}")[1] == 0.4
    env = make("single", [Problem("p", "Capital of France?", "Paris")], grade="exact")
    assert "Answer: answer" in env.reset(seed=0)[0]
    assert env.step("It is known.\nAnswer: paris.")[1] == 1.0
    with pytest.raises(UserError, match="Did you mean 'exact'"):
        make("single", grade="exakt")


def test_a_config_names_its_grader_and_holds_its_settings() -> None:
    config = read_request(["--grader", "number", "--grading.rel_tol", "0.1", "--env", "single"]).config
    assert config.grading == grader_named("number", rel_tol=0.1)
    assert config.protocol.marked is BOXED
    assert read_request(["--grader", "exact", "--env", "single"]).config.protocol.marked is LINE
    assert read_request(["--grader", "exact", "--protocol.marker", "boxed"]).config.protocol.marked is BOXED
    with pytest.raises(UserError, match="grader 'number' has no such setting"):
        read_request(["--grader", "number", "--grading.forms", "numeral"])


@pytest.mark.parametrize("name", MARKERS)
def test_what_a_prompt_shows_is_found_again(name: str) -> None:
    marker = MARKERS[name]
    assert marker.find(f"So:\n{marker.around('x = 1')}\n") == "x = 1"
    assert marker.find(f"{marker.around('first')}\nNo.\n{marker.around('last')}") == "last"
    assert marker.find("nothing") is None
    text = f"{marker.lead}x{marker.closing}\nand on"
    assert text[marker.end_in(text) :].strip() == "and on"


def test_a_half_written_answer_does_not_count() -> None:
    assert FENCE.find("```python\ndef f(): pass\n") is None
    assert BOXED.find(r"\boxed{4") is None
    assert FENCE.find("```python\na\n```\n```python\nb") == "a"


@pytest.mark.parametrize("marker", [LINE, FENCE])
def test_prompts_and_forced_answers_follow_the_marker(marker) -> None:
    for protocol in plugins.names("backtrack_mrt.envs"):
        plugins.load("backtrack_mrt.envs", protocol, EpisodeProtocol, "env")  # type: ignore[type-abstract]
        for style in styles(protocol):
            prompts = load_prompts(protocol, style).marked(marker)
            assert not any("boxed" in text for text in prompts.texts.values()), (protocol, style)
            assert prompts.begins_answer or not load_prompts(protocol, style).begins_answer


def test_a_line_ends_with_the_message_or_the_line() -> None:
    from backtrack_mrt.rollouts.chat import ByteChat

    chat = ByteChat()
    dialogue = Dialogue(chat, load_prompts("single", "instruct").marked(LINE))
    assert dialogue.forced_answer((*chat.encode(" Paris"), chat.eos_id)) == "Paris"
    assert dialogue.forced_answer(chat.encode(" Paris\nor not")) == "Paris"
    assert dialogue.forced_answer(chat.encode(" Pari")) is None


@pytest.mark.parametrize(
    "gold",
    [
        '{"numbers": "234", "target": 24}', '{"numbers": [], "target": 0}', '{"numbers": [2.5, 3], "target": 5}',
        '{"numbers": [2], "target": true}', '{"numbers": [2, 3], "target": 1e400}', "2*3=7", "words",
    ],
)  # fmt: skip
def test_what_gives_no_numbers_and_target_is_refused(gold: str) -> None:
    assert grader_named("countdown").check_gold(gold)
