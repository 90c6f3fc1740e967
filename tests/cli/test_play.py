"""`backtrack-mrt play` in a real terminal (a pty), and through a pipe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from support.command_line import command

from backtrack_mrt.cli.game import Game, shown_tokens
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.evaluation.evaluate import read_graded
from backtrack_mrt.graders.math import Math
from backtrack_mrt.policy.models import load_tokenizer
from backtrack_mrt.rollouts.assembly import dialogue_with
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.types import Problem, StopReason

ROOT = Path(__file__).parents[2]
PLAY = ["-m", "backtrack_mrt", "play"]
OWN = ["--question", "1) 2 3 = 5;", "--answer", "++"]
WRONG = "## Step 1: +2 -3 = -1;\n\\boxed{+-}"
STEPS = "## Step 1: -4 -8 -4 +7 = -9;\n## Step 2: +2 +1 -4 = -1;\n"  # of problem 3
WAIT = 120  # the model is loaded on a busy machine


def seen(text: str) -> str:
    """What a terminal shows of it, roughly: no colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n")


class Terminal:
    """`backtrack-mrt play` in a pty."""

    def __init__(self, *flags: str, columns: int = 100) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
        self.child = pexpect.spawn(
            sys.executable, [*PLAY, *flags], env=environment, dimensions=(40, columns), encoding="utf-8", timeout=WAIT
        )
        self.child.delaybeforesend = None
        self.log = ""

    def see(self, *texts: str) -> None:
        """Wait until all of these were shown, in this order."""
        for text in texts:
            self.child.expect_exact(text)
            self.log += self.child.before + text

    def say(self, text: str) -> None:
        self.see("> ")
        self.child.sendline(text)

    def turn(self, text: str) -> None:
        self.say(text.replace("\n", "\r"))
        self.child.sendline("")

    def end(self) -> int:
        self.child.expect(pexpect.EOF)
        self.log += self.child.before
        self.child.close()
        return int(self.child.exitstatus)


def test_by_hand_to_a_right_answer_then_a_violation(tmp_path: Path) -> None:
    """With the embedded model's values; the file is read by everything that reads trajectories."""
    file = tmp_path / "mine.jsonl"
    terminal = Terminal("--problem", "3", "--save", str(file))
    terminal.see("⟦<bos>⟧1) 4 8 4 7 = -9;", "Solve.", "attempt: at most 64 tokens, 256 left")
    terminal.turn(f"{STEPS}## Step 3: +6 -8 +7 +8 = 13;\n\\boxed{{---+,++-,+-++}}")
    terminal.see("Turn 1 · attempt", "answer ---+,++-,+-++ · V ", "3 steps standing", "Check.")
    terminal.turn("Miss: 0; 0; -2;\nError in step 3")
    terminal.see("error in step 3", "Backtrack.")
    terminal.turn("Backtrack to step 2")
    terminal.see("back to step 2", "2 steps standing", "Revise.")
    terminal.turn("## Step 3: +6 +8 -7 +8 = 15;\n\\boxed{---+,++-,++-+}")
    terminal.see("answer ---+,++-,++-+", "Check.")
    terminal.turn("No error")
    terminal.see("End: finished", "answer ---+,++-,++-+ · right (gold ---+,++-,++-+)")
    terminal.say(":new 4")
    terminal.see("1 saved", "Problem signs/test/")
    terminal.turn("## Step 2: oops\n\\boxed{+}")
    terminal.see("violation: step_order", "Why: step 2 where step 1 was expected", "End: violation")
    terminal.say(":undo")
    terminal.see("attempt: at most 64 tokens")
    terminal.say(":model all")
    terminal.see("End: ")
    terminal.say(":quit")
    assert terminal.end() == 0
    first, second = read_graded(file)
    phases = [turn.spec.phase for turn in first.trajectory.turns]
    assert phases == ["attempt", "detect", "backtrack", "revise", "detect"]
    assert (first.trajectory.outcome, first.trajectory.given) == (1.0, 0)
    assert first.values is not None
    assert first.values[-1] > 0.5 > first.values[1]
    assert all(turn.violation is None for turn in second.trajectory.turns), "the violation was taken back"
    shown = command("show", file)
    assert "2 of 2 such traces" in shown.stdout
    assert f"({first.values[4] - first.values[3]:+.2f})" in shown.stdout, "the progress of the revision"


def test_a_model_is_watched_and_taken_over_in_a_narrow_terminal(tmp_path: Path) -> None:
    file = tmp_path / "watched.jsonl"
    terminal = Terminal("--watch", "--problem", "3", columns=30)
    terminal.say("")
    terminal.see("Turn 1 · attempt", "V 0.", "standing")
    terminal.child.setwinsize(40, 20)
    terminal.turn("No error")
    terminal.see("Turn 2 · detect", "End: finished")
    terminal.see("> ")
    terminal.child.sendintr()
    terminal.see("save 1 unsaved as")
    terminal.child.sendline(str(file))
    assert terminal.end() == 130
    assert "Traceback" not in terminal.log
    (scored,) = read_trajectories(file)
    assert [turn.spec.phase for turn in scored.trajectory.turns] == ["attempt", "detect"]
    sampled, typed = (turn.completion.logprobs for turn in scored.trajectory.turns)
    assert all(logprob <= 0 for logprob in sampled)
    assert all(logprob != logprob for logprob in typed), "NaN: no policy sampled it"


@pytest.mark.slow
def test_leaving_twice_saves_nothing(tmp_path: Path) -> None:
    terminal = Terminal(*OWN, "--no-model")
    terminal.turn(WRONG)
    terminal.see("Turn 1", "> ")
    terminal.child.sendintr()
    terminal.see("save 1 unsaved as")
    terminal.child.kill(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.log


def piped(text: str | bytes, *flags: str) -> subprocess.CompletedProcess[bytes]:
    said = text.encode() if isinstance(text, str) else text
    return subprocess.run([sys.executable, *PLAY, *flags], input=said, capture_output=True, timeout=WAIT, check=False)


def test_a_question_of_one_s_own_needs_no_problem_set() -> None:
    told = command("play", *OWN, "--no-model", "--data.eval", "gone.jsonl", stdin=":new\n")
    assert told.returncode == 0, told.stderr
    assert "data.eval" in told.stdout
    assert "no such file" in told.stdout


def test_turns_from_a_pipe(tmp_path: Path) -> None:
    file = tmp_path / "piped.jsonl"
    told = piped("## Step 1: x\n\\\n\\boxed{++}\n\n:tokens\nNo error", *OWN, "--no-model", "--save", str(file))
    assert told.returncode == 0, told.stderr.decode()
    assert "End: finished · answer ++ · right" in told.stdout.decode()
    assert "\\boxed{++}⟦<eos>⟧" in told.stdout.decode()
    assert b"> " not in told.stdout
    (scored,) = read_trajectories(file)
    assert scored.trajectory.turns[0].text == "## Step 1: x\n\n\\boxed{++}"


@pytest.mark.parametrize(
    ("flags", "blamed"),
    [
        (["--problem", "99999"], "PROBLEM"),
        (["--question", "hm"], "--answer"),
        (["--answer", "3"], "--question"),
        ([*OWN[:3], "{"], "--answer"),
        (["--watch", "--no-model"], "--watch"),
        (["--save", "no/such/file.jsonl"], "--save"),
        (["--save", str(ROOT / "README.md")], "trajectories"),
        (["--env", "nope"], "--env"),
        (["no-such-model"], "model.name_or_path"),
    ],
)
def test_a_mistake_ends_it_before_a_model_loads(flags: list[str], blamed: str) -> None:
    code = "import sys; sys.modules['torch'] = None; from backtrack_mrt.cli.main import run; run()"
    told = subprocess.run([sys.executable, "-c", code, "play", *flags], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.startswith(f"error: {blamed}")
    assert "Traceback" not in told.stderr


@pytest.fixture
def game() -> Iterator[Game]:
    """By hand, without a model."""
    config = read_request([]).config
    dialogue = dialogue_with(load_tokenizer(config.model), load_prompts(config.env, config.prompts))
    with Math(workers=1) as grader:
        yield Game(Problem("p", "1) 2 3 = 5;", "++"), config.protocol, dialogue, grader)


def test_typed_turns_are_tokenised_and_cut_like_sampled_ones(game: Game) -> None:
    chat = game.dialogue.chat
    game.type(WRONG)
    assert game.trajectory.turns[0].completion.token_ids == (*chat.encode(WRONG), chat.eos_id)
    assert game.seen_ids == game.trajectory.token_ids + game.asked_ids
    game.type("Error in step 1\n" * 50)
    assert (game.trajectory.stop, game.why()) == (StopReason.VIOLATION, "no end within 32 tokens")
    assert game.undo()
    assert game.undo()
    assert not game.undo()
    assert game.trajectory.prompt_ids == game.seen_ids


def test_text_that_looks_like_a_token_is_told_apart(game: Game) -> None:
    chat = game.dialogue.chat
    ids = (*chat.encode("a <eos>"), chat.eos_id)
    assert shown_tokens(ids, chat).endswith("<eos>⟦<eos>⟧")
    assert shown_tokens(ids, chat, numbered=True).splitlines()[-1] == "2 ⟦<eos>⟧"
