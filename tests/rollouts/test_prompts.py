"""Prompt files: complete for every shipped protocol, free of slips, and filled in one pass."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from backtrack_mrt import plugins
from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts import prompts as prompting
from backtrack_mrt.rollouts.prompts import CLOSE, FORCE, FORCE_PREFIX, HINT, QUESTION, Prompts, load_prompts

FOLDER = Path(str(files("backtrack_mrt.prompts")))
STYLES = [(protocol, style) for protocol in plugins.names("backtrack_mrt.envs") for style in ("instruct", "terse")]
STYLES += [("backtrack", "mrt-official"), ("open-ended", "mrt-official")]
PHASES = {  # phase → the fields its turns carry
    "backtrack": {"attempt": set(), "detect": set(), "backtrack": set(), "revise": {"target", "next"}},
    "single": {"attempt": set()},
    "retry": {"attempt": set(), "retry": set()},
    "open-ended": {"think": set(), "wait": set()},
    "inline": {"attempt": set(), "wait": set()},
}


@pytest.mark.parametrize(("protocol", "style"), STYLES)
def test_every_shipped_protocol_has_all_prompts_in_its_styles(protocol, style):
    prompts = load_prompts(protocol, style)
    closing = {CLOSE} if protocol in ("open-ended", "inline") else set()
    assert set(prompts.texts) - {"system"} == {QUESTION, FORCE, FORCE_PREFIX, HINT, *closing, *PHASES[protocol]}
    for phase, fields in PHASES[protocol].items():
        assert prompts.placeholders(phase) <= fields
        assert prompts.render(phase, dict.fromkeys(fields, "7"))


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.md")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_prompt_files_are_clean(path):
    text = path.read_bytes().decode("utf-8")
    assert not re.search(r"[^\n\x20-\x7e]", text.replace("…", "...")), "only printable ASCII, newlines, and …"
    assert text.endswith("\n")
    assert path.stem == CLOSE or not text.endswith("\n\n"), "only what closes a thought ends in empty lines"
    assert not re.search(r"[ \t]$", text, re.MULTILINE)


@pytest.mark.parametrize("style", ["instruct"])
def test_the_prompts_show_the_grammar_that_the_parser_wants(style):
    backtrack = load_prompts("backtrack", style)
    assert "## Step 1:" in backtrack.texts["attempt"]
    assert "## Step 3:" in backtrack.render("revise", {"target": "2", "next": "3"})
    assert "\nNo error\n" in backtrack.texts["detect"]
    assert "\nError in step N" in backtrack.texts["detect"]
    assert "\nBacktrack to step N" in backtrack.texts["backtrack"]
    inline = load_prompts("inline", style).texts["attempt"]
    assert all(
        line in inline.splitlines() for line in ("## Step 1: ...", "Backtrack to line N", "Backtrack to the beginning")
    )


def test_the_words_that_ask_for_the_answer_are_a_setting():
    plain, single = load_prompts("open-ended", "instruct"), load_prompts("single", "instruct")
    assert plain.asking(None) == plain
    asked = plain.asking("Stop.")
    assert asked.texts["force"] == "Stop."
    assert asked.texts["close"] == "\n\nStop.\n</think>\n\n"
    with pytest.raises(UserError, match=r"prover\.suffix.*nothing is filled in"):
        plain.asking("Stop <<now>>.")
    assert set(single.asking("Stop.").texts) == set(single.texts)


def test_contents_are_not_searched_for_placeholders():
    prompts = Prompts({QUESTION: "<<question>> / <<instruction>>", "attempt": "Solve."})
    opened = prompts.opening("attempt", r"<<instruction>> \g<0> <<target>>", {})
    assert opened == r"<<instruction>> \g<0> <<target>> / Solve."


def test_unknown_prompts_and_placeholders_are_named():
    prompts = Prompts({"revise": "From <<next>>"})
    with pytest.raises(UserError, match=r"revise\.md = 'next': unknown placeholder"):
        prompts.render("revise", {"target": "1"})
    with pytest.raises(UserError, match="Did you mean 'revise'"):
        prompts.render("revize", {})
    with pytest.raises(UserError, match="Did you mean 'terse'"):
        load_prompts("backtrack", "ters")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("attempt", b"the answer in \x08oxed{}", "control character"),
        ("attempt", b"caf\xe9", "not UTF-8"),
        ("attempt", b"<<Question>>", "not a placeholder"),
        ("question", b"<<question>>", "other placeholders"),
        ("force", b"<<question>> now", "other placeholders"),
        ("force_prefix", rb"The answer is \boxed{ ", "does not end where its box opens"),
        ("force", None, r"force\.md is missing"),
        ("hint", b"The answer is a secret.", "other placeholders"),
        ("close", b"</think> <<answer>>", "other placeholders"),
    ],
)
def test_slips_in_a_users_prompts_are_refused(tmp_path, name, content, reason):
    shutil.copytree(FOLDER / "single" / "terse", tmp_path / "own")
    path = tmp_path / "own" / f"{name}.md"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        load_prompts("single", str(tmp_path / "own"))


def test_a_directory_named_like_a_protocol_is_not_taken_for_its_prompts(tmp_path, monkeypatch):
    (tmp_path / "single").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_prompts("single", "terse").texts["attempt"] == "Solve."


def test_a_wheel_brings_its_own_prompts(monkeypatch):
    class Entry:
        name, value = "my_toy", "backtrack_mrt.prompts"

    monkeypatch.setattr(
        prompting.plugins, "entry_points", lambda group: [Entry] if group == "backtrack_mrt.prompts" else []
    )
    monkeypatch.setattr(prompting, "files", lambda package: FOLDER / "single")
    assert load_prompts("my-toy", "terse").texts["attempt"] == "Solve."


def test_protocols_are_loaded_by_the_names_of_their_prompts():
    for protocol, _ in STYLES:
        assert plugins.load("backtrack_mrt.envs", protocol, EpisodeProtocol, "env")
