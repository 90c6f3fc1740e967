"""Demonstrations from written solutions: errors that are plausible and masked, and turns that the protocol accepts."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt.data.demonstrations.equations import exact_value, number, one_operation, parse_step, wrong_solution
from backtrack_mrt.data.demonstrations.files import read_demonstrations, write_demonstrations
from backtrack_mrt.data.demonstrations.solved import Solved, demonstrate_solved, read_solved
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.errors import UserError
from backtrack_mrt.rollouts.chat import ByteChat, ChatFormat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.replay import tokenise
from backtrack_mrt.types import StopReason

CLIPS = {
    "id": "clips",
    "problem": "Natalia sold 48 clips in April, and half as many in May. How many in all?",
    "answer": "72",
    "solution": "Natalia sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips in all.",
}
WALLET = {
    "id": "wallet",
    "problem": "Betty has half of $100. Her parents give $15, her grandparents twice as much. What is lacking?",
    "answer": "5",
    "solution": "Betty has 100 / 2 = $50.\nHer grandparents give 15 x 2 = $30.\nLacking is 100 - 50 - 30 - 15 = $5.",
}
HUB = {"question": "3 hats at $1,000 each?", "answer": "They cost 3*1,000 = $<<3*1000=3000>>3,000.\n#### 3,000"}


def rows(tmp_path: Path, *given: object) -> str:
    path = tmp_path / "solved.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


@pytest.mark.parametrize(
    ("question", "answer", "equation"),
    [
        ("Jose has 7 caps and gets 2 more.", "9", "7 + 2 = 9"),
        ("2 of the 8 cakes are gone.", "6", "8 - 2 = 6"),
        ("18 eggs, 6 in a box.", "3", "18 / 6 = 3"),
        ("$1.50 each, 4 of them.", "6", "1.50 * 4 = 6"),
        ("1, then 2, then 4 are found.", "7", "1 + 2 + 4 = 7"),
        ("2 and 2 make what?", "4", None),  # a sum or a product
        ("3 red, 4 blue.", "8", None),
        ("What is it?", "8", None),
        ("3 and 0 apples", "x", None),
        ("8 in all, 0 boxes", "8", None),  # 8 + 0, 8 - 0
    ],
)
def test_one_operation_is_found_if_it_is_the_only_one(question: str, answer: str, equation: str | None) -> None:
    step = one_operation(question, answer)
    assert (step.equation if step else None) == equation


def test_a_set_without_solutions_is_worked_out(tmp_path: Path) -> None:
    caps = {"problem": "Jose has 7 caps and gets 2 more.", "answer": "9"}
    usable, unusable = read_solved(rows(tmp_path, caps, caps | {"answer": "11"}))
    assert ([[step.text for step in solved.steps] for solved in usable], unusable) == ([["7 + 2 = 9"]], 1)


@pytest.fixture
def solved(tmp_path: Path) -> list[Solved]:
    return read_solved(rows(tmp_path, CLIPS, WALLET))[0]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", Fraction(24)),
        ("$1,200 - (3 x .5)", Fraction("1198.5")),
        ("2 × 3 ÷ 4", Fraction(3, 2)),
        ("0.1+0.2", Fraction(3, 10)),
        ("1/0", None),
        ("2**9", None),
        ("import", None),
        ("(1", None),
    ],
)
def test_expressions_are_worked_out_exactly(expression: str, value: Fraction | None) -> None:
    assert exact_value(expression) == value


@pytest.mark.parametrize(
    ("line", "equation"),
    [
        ("He pays 3*$20=$60 a week.", "3*$20=$60"),
        ("(2+3) x 4 = 20 eggs", "(2+3) x 4 = 20"),
        ("In all 1,000 + 200 = 1,200.", "1,000 + 200 = 1,200"),
        ("It takes 2+2 = 5 days", None),  # wrong
        ("5*2+3 = 10+3 = 13", None),  # a chain
        ("3 hats + 2 hats = 5 hats", None),  # units within
        ("20% * 50 = 10", None),
        ("1 - 2/3 = 1/3", None),
        ("He has 5 more.", None),
    ],
)
def test_a_step_has_one_right_equation_of_numbers(line: str, equation: str | None) -> None:
    step = parse_step(line)
    assert (step and step.equation) == equation
    assert step is None or step.text == line


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_an_error_is_followed_to_a_wrong_end(solved: list[Solved], wrong: int) -> None:
    steps, seen = solved[1].steps, set()
    for seed in range(60):
        shown = wrong_solution(steps, wrong, random.Random(seed))
        assert shown is not None
        assert shown[:wrong] == list(steps[:wrong])
        assert shown[wrong].equation != steps[wrong].equation
        assert number(shown[-1].value) != 5
        for later in shown[wrong + 1 :]:  # worked out rightly from the wrong number
            assert exact_value(later.left) == number(later.value)
        seen.add(shown[wrong].equation)
    assert len(seen) >= 4


def test_the_wrong_operation_is_carried_out_rightly(solved: list[Solved]) -> None:
    steps = solved[0].steps
    shown = {solution[1].equation for seed in range(60) if (solution := wrong_solution(steps, 1, random.Random(seed)))}
    assert {"48-24 = 24", "48+24 = 73", "48+24 = 71", "48+24 = 82"} < shown


def test_later_mentions_of_the_number_follow() -> None:
    lines = ["He eats 2*3 = 6 figs, 6 is a lot.", "Of 16 figs, 6 are gone: 16 - 6 = 10 are left, not 6."]
    steps = [step for line in lines if (step := parse_step(line))]
    shown = wrong_solution(steps, 0, random.Random(3))
    assert shown is not None
    value = shown[0].value
    assert shown[0].after == f" figs, {value} is a lot."
    assert shown[1].text == f"Of 16 figs, {value} are gone: 16 - {value} = {shown[1].value} are left, not {value}."


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_the_protocol_accepts_every_demonstration(
    solved: list[Solved], right: float, chat: ChatFormat, tmp_path: Path
) -> None:
    path, dialogue = tmp_path / "traces.jsonl", Dialogue(chat, load_prompts("backtrack", "instruct"))
    made = [(one.problem, demonstrate_solved(one, random.Random(seed), right)) for one in solved for seed in range(20)]
    write_demonstrations(path, made)
    read = list(read_demonstrations(path))
    assert len(read) == len(made)
    for demonstration in read:
        tokenised = tokenise(demonstration, Backtrack(max_revisions=2), dialogue)
        trajectory = tokenised.trajectory
        phases = [turn.spec.phase for turn in trajectory.turns]
        assert trajectory.stop is StopReason.FINISHED
        assert trajectory.answer == demonstration.problem.answer
        if right:
            assert phases == [BacktrackPhase.ATTEMPT, BacktrackPhase.DETECT]
            assert all(f for f, j in zip(tokenised.learn, trajectory.turn_index(), strict=True) if j >= 0)
            continue
        assert phases == [
            BacktrackPhase.ATTEMPT,
            BacktrackPhase.DETECT,
            BacktrackPhase.BACKTRACK,
            BacktrackPhase.REVISE,
            BacktrackPhase.DETECT,
        ]
        attempt, detect, backtrack, *_ = trajectory.turns
        assert attempt.parsed is not None
        assert detect.parsed is not None
        assert backtrack.parsed is not None
        assert attempt.parsed.answer != demonstration.problem.answer
        assert detect.parsed.step == (backtrack.parsed.step or 0) + 1
        masked = [
            token
            for token, learn, j in zip(
                trajectory.token_ids[len(trajectory.prompt_ids) :],
                tokenised.learn,
                trajectory.turn_index(),
                strict=True,
            )
            if j >= 0 and not learn
        ]
        # Everything from the wrong step's text to the box carries no loss, and nothing else does.
        marker = f"## Step {detect.parsed.step}:"
        assert chat.decode(tuple(masked)) == attempt.text.partition(marker)[2]


def test_gsm8k_as_it_is_on_the_hub(tmp_path: Path) -> None:
    (one,), unusable = read_solved(rows(tmp_path, HUB))
    assert unusable == 0
    assert (one.problem.id, one.problem.answer, one.problem.source) == ("solved/0", "3,000", "solved")
    assert one.steps[0].text == "They cost 3*1,000 = $3,000."


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([{"answer": "2", "solution": "1+1 = 2"}], "no column 'problem' or 'question'"),
        ([CLIPS, CLIPS | {"solution": " "}], r"solved\.jsonl:2 has no text in column 'solution'"),
        ([CLIPS, 7], r"solved\.jsonl:2 has no text"),
        ([], "it has no rows"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, given: list[object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_solved(rows(tmp_path, *given))


def test_solutions_in_another_form_are_counted(tmp_path: Path) -> None:
    usable, unusable = read_solved(rows(tmp_path, CLIPS, CLIPS | {"solution": "Guess."}, CLIPS | {"answer": "73"}))
    assert (len(usable), unusable) == (1, 2)


def test_the_command(tmp_path: Path) -> None:
    source, out = rows(tmp_path, CLIPS, WALLET), tmp_path / "traces.jsonl"
    done = command("demonstrate", source, "--out", str(out), "--n", "2", "--right", "0")
    assert done.returncode == 0, done.stderr
    assert "2 demonstrations (2 of 2 problems would do)" in done.stdout
    first = out.read_text()
    assert len(first.splitlines()) == 2
    (tmp_path / "held.jsonl").write_text(json.dumps(CLIPS | {"problem": CLIPS["problem"].upper()}))
    held_out = ("--held-out", tmp_path / "held.jsonl")
    kept = command("demonstrate", source, "--out", out, "--n", "1", "--right", "0", *held_out)
    assert "1 demonstrations (1 of 2 problems would do)" in kept.stdout
    assert json.loads(out.read_text())["problem"]["id"] == "wallet"
    command("demonstrate", source, "--out", str(out), "--n", "2", "--right", "0")
    assert out.read_text() == first
    for arguments, message in (
        ((source, "--out", str(out), "--n", "3"), "--n = 3: only 2 of 2"),
        ((source, "--out", str(tmp_path), "--n", "1"), "cannot be written"),
        ((source, "--out", str(out), "--right", "2"), "not a share"),
        ((str(tmp_path / "none.jsonl"), "--out", str(out)), "no such file"),
    ):
        failed = command("demonstrate", *arguments)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert len(failed.stderr.splitlines()) == 1


def test_a_demonstration_must_fit_into_its_turn(solved: list[Solved], tmp_path: Path) -> None:
    dialogue = Dialogue(ByteChat(), load_prompts("backtrack", "instruct"))
    path = tmp_path / "traces.jsonl"
    write_demonstrations(path, [(solved[0].problem, demonstrate_solved(solved[0], random.Random(0), right=1))])
    (demonstration,) = read_demonstrations(path)
    with pytest.raises(UserError, match=r"turn 1 \(attempt\).*leaves room for 20"):
        tokenise(demonstration, Backtrack(attempt_tokens=20), dialogue)
