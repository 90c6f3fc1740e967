"""`backtrack-mrt check-env`: shipped protocols pass, and each kind of mistake is told in one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import command

from backtrack_mrt import plugins
from backtrack_mrt.rollouts import rehearsal

PROTOCOL = """
from backtrack_mrt.grading.extract import extract_boxed
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation
from backtrack_mrt.types import Parsed, StopReason, TurnSpec


class Twice(EpisodeProtocol):
    summary = "an attempt, and another"

    @property
    def max_turns(self):
        return 2

    def next_turn(self, problem, turns):
        if len(turns) == 2:
            return StopReason.FINISHED
        return TurnSpec("again" if turns else "attempt", 64, {"number": str(len(turns))})

    def parse(self, phase, text, turns):
        answer = extract_boxed(text)
        if answer is None:
            raise ProtocolViolation("missing_answer", "no box")
        return Parsed(answer=answer)
"""
PROMPTS = {
    "question": "<<question>>\n<<instruction>>",
    "attempt": "Solve.",
    "again": "Solve it again, for time <<number>>.",
    "force": "Answer.",
    "force_prefix": "\\boxed{",
}


def check(folder: Path, *replies: str, **changed: str | None) -> tuple[int, str]:
    """Exit code and all that was told of the protocol above. changed: prompts by name (None: no such file), or, as
    `old`, `new`, a piece of the protocol."""
    source = PROTOCOL.replace(changed.pop("old", None) or "\0", changed.pop("new", None) or "")
    (folder / "twice.py").write_text(source)
    (folder / "words").mkdir()
    for name, text in (PROMPTS | changed).items():
        if text is not None:
            (folder / "words" / f"{name}.md").write_text(text + "\n")
    given = [part for reply in replies for part in ("--reply", reply)]
    done = command("check-env", "./twice.py", "--prompts", "./words", *given, cwd=folder)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", plugins.names("backtrack_mrt.envs"))
def test_shipped_protocols_pass_in_all_styles(name: str) -> None:
    done = command("check-env", name)
    assert done.returncode == 0, done.stderr
    assert f"{name} with instruct: no mistake found." in done.stdout
    assert f"{name} with terse: no mistake found." in done.stdout
    assert "scripted replies" not in done.stdout, "all phases are reached"


def test_a_right_one_passes(tmp_path: Path) -> None:
    code, told = check(tmp_path)
    assert code == 0, told
    assert "phases played: again, attempt; at most 2 turns of 2" in told


METRICS = "    def metrics(self, trajectory):\n        return {{'right_first': {}}}\n\n    def parse"
CUTS = "    def cuts(self, text):\n        return None\n\n    def parse"
NO_METRICS = METRICS.replace("{{'right_first': {}}}", "3")
MOVES = "    def moves(self, trajectory):\n        return {'again': [range(1, 3)]}\n\n    def parse"
MISTAKES: dict[str, tuple[dict[str, str | None], list[str]]] = {
    "a misspelt placeholder": ({"again": "Time <<nubmer>>."}, ["again.md", "'nubmer'", "Did you mean 'number'"]),
    "a misspelt common one": ({"question": "<<qestion>> <<instruction>>"}, ["question.md", "<<question>>"]),
    "no file for a phase": ({"again": None}, ["'again'", "no such prompt file"]),
    "no file for all": ({"force": None}, ["force.md is missing"]),
    "no instruction": ({"again": " "}, ["again.md", "no instruction"]),
    "parse raises": ({"old": "answer is None", "new": "int(text) < 0"}, ["Twice.parse", "ValueError", "line 21"]),
    "parse returns nothing": ({"old": "return Parsed(answer=answer)", "new": "return None"}, ["Twice.parse", "Parsed"]),
    "turns without end": (
        {"old": "if len(turns) == 2", "new": "if len(turns) == 9"},
        ["Twice.next_turn", "after 2", "max_turns is 2"],
    ),
    "a call without end": (
        {"old": "if len(turns) == 2", "new": "while turns:\n            pass\n        if turns"},
        ["Twice.next_turn", "no end within"],
    ),
    "no next turn": ({"old": "return StopReason.FINISHED", "new": "return None"}, ["Twice.next_turn", "StopReason"]),
    "no room": ({"old": ", 64,", "new": ", 0,"}, ["Twice.next_turn", "at least 1 token"]),
    "half a token": ({"old": ", 64,", "new": ", 64.5,"}, ["Twice.next_turn", "a whole number (int)"]),
    "a field of no text": (
        {"old": "str(len(turns))", "new": "len(turns)"},
        ["Twice.next_turn", "are not texts"],
    ),
    "no turn at all": ({"old": "if len(turns) == 2", "new": "if True"}, ["Twice.next_turn", "a trajectory has a turn"]),
    "an end of another": (
        {"old": ".FINISHED", "new": ".VIOLATION"},
        ["Twice.next_turn", "ends FINISHED"],
    ),
    "steps in a list": ({"old": "answer=answer", "new": "steps=['1']"}, ["Twice.parse", "no tuple of texts"]),
    "cuts of nothing": ({"old": "    def parse", "new": CUTS}, ["Twice.cuts = None", "no list of offsets"]),
    "no metrics": (
        {"old": "    def parse", "new": NO_METRICS},
        ["Twice.metrics = 3"],
    ),
    "metrics of no size": ({"old": "    def parse", "new": METRICS.format("float('nan')")}, ["Twice.metrics", "nan"]),
    "a bound without end": ({"old": "return 2", "new": "return 10**9"}, ["Twice.max_turns", "at most 10,000"]),
    "a bound of none": ({"old": "return 2", "new": "return 0"}, ["Twice.max_turns", "at least 1"]),
    "a violation's name": ({"old": "missing_answer", "new": "No answer!"}, ["'No answer!'", "snake_case"]),
    "metrics that raise": ({"old": "    def parse", "new": METRICS.format("1 / 0")}, ["Twice.metrics", "ZeroDivision"]),
    "metrics of no number": ({"old": "    def parse", "new": METRICS.format("'x'")}, ["Twice.metrics", "'x'"]),
    "moves of no turns": ({"old": "    def parse", "new": MOVES}, ["Twice.moves", "not ranges of the 2 turns"]),
    "an error at import": ({"old": "class Twice", "new": "1 / 0\nclass Twice"}, ["env", "ZeroDivisionError"]),
    "a method that is missing": ({"old": "def parse", "new": "def prase"}, ["does not define parse"]),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_told_in_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 0.2)
    changed, parts = MISTAKES[kind]
    code, told = check(tmp_path, **changed)
    assert code == 2
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    for part in parts:
        assert part in told


def test_a_phase_behind_an_unknown_grammar_is_read_as_well(tmp_path: Path) -> None:
    """No scripted reply is accepted: what a turn claims is made up, and the mistake in the next prompt is found."""
    grammar = {"old": "answer is None", "new": "not text.startswith('VERDICT: ')"}
    code, told = check(tmp_path, **grammar)
    assert code == 0, told
    assert "attempt: none of the scripted replies was accepted; give one with --reply" in told
    assert "no mistake found, as far as its replies go." in told
    (tmp_path / "words" / "again.md").write_text("<<nubmer>>")
    refused = command("check-env", "./twice.py", "--prompts", "./words", cwd=tmp_path)
    assert (refused.returncode, "again.md" in refused.stderr) == (2, True)
    (tmp_path / "words" / "again.md").write_text("Again.")
    given = command("check-env", "./twice.py", "--prompts", "./words", "--reply", "VERDICT: fine", cwd=tmp_path)
    assert "phases played: again, attempt" in given.stdout
