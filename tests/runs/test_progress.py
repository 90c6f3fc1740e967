"""The live panel in a pty, read off a small screen, and the plain lines of a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from backtrack_mrt.runs.progress import figures, packed, progress

STEP = {
    "outcome": 0.25,
    "progress/turn_0": 0.2,
    "progress/phase_attempt": 0.2,
    "progress/phase_detect": -0.01,
    "loss": 3.0,
    "tokens/step_sampled": 3000,
    "time/step": 1.5,
    "time/rollout": 0.8,
    "time/prover": 0.2,
    "time/grade": 0.1,
    "time/update": 0.4,
    "time/sync": 0.5,
}
LOOP = f"""
import logging, sys, time, warnings
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.runs.progress import progress
logging.getLogger("library").addHandler(logging.StreamHandler())

def main():
    with progress(4, "train x", seconds=0) as bar:
        for step in (1, 2, 3):
            time.sleep(0.3)
            bar.update(1, {STEP} | {{"step": step}})
            if step == 2:
                print("a result")
                warnings.warn("a warning")
                logging.getLogger("library").warning("a log record")
                if len(sys.argv) > 1:
                    input()
        raise UserError("field", 1, "it is bad", "Mend it.")

run_main(main)
"""
FIGURES = ["accuracy 0.250", "progress attempt +0.20", "detect -0.01", "2,000 tokens/s"]
FIGURES += ["rollout 0.8 s", "prover 0.2 s", "grading 0.1 s", "update 0.4 s"]


def screen(output: str) -> list[str]:
    """The lines that a terminal shows after what rich's live display writes. Anything else in it is an error."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[a-zA-Z]|\r|\n)", output):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part in ("\x1b[1A", "\x1b[A"):
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part and part != "\r" and not re.fullmatch(r"\x1b\[([0-9;]*m|\?25[lh])", part):
            assert "\x1b" not in part
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


# The width is the terminal's own: rich would believe a COLUMNS that stands in the environment.
TERMINAL = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm-256color"}


@pytest.mark.parametrize("columns", [100, 30])
def test_the_panel_stays_whole_whatever_is_printed(tmp_path: Path, columns: int) -> None:
    """Wide and narrow, with a result, a warning, a log record and a UserError meanwhile."""
    (tmp_path / "loop.py").write_text(LOOP)
    child = pexpect.spawn(
        sys.executable,
        [str(tmp_path / "loop.py")],
        env=TERMINAL,
        dimensions=(30, columns),
        encoding="utf-8",
        timeout=60,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    shown = screen(child.before)
    assert shown[0] == "a result"
    assert "UserWarning:awarning" in "".join(shown).replace(" ", "")
    panel = shown.index("a log record") + 1
    assert all(len(line) <= columns for line in shown[panel:-1])
    assert shown[panel].startswith("train x 3/4")
    told = " · ".join(shown[panel:-1])
    assert " left" in told
    assert [figure for figure in FIGURES if figure not in told] == []
    assert shown[-1] == "error: field = 1: it is bad. Mend it."
    assert "\x1b[?25h" in child.before, "the cursor is shown again"


def test_a_resized_terminal_gets_a_panel_of_its_width(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(LOOP)
    child = pexpect.spawn(
        sys.executable,
        [str(tmp_path / "loop.py"), "wait"],
        env=TERMINAL,
        dimensions=(30, 100),
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("a log record")
    child.setwinsize(30, 24)
    child.expect_exact("update")  # drawn anew
    child.sendline("")
    child.expect(pexpect.EOF)
    last = child.before.rpartition("train x 3/4")[2]
    assert all(len(line) <= 24 for line in screen("train x 3/4" + last)[:-1])


def test_through_a_pipe_there_are_lines_with_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(LOOP)
    told = subprocess.run([sys.executable, tmp_path / "loop.py"], capture_output=True, text=True, check=False)
    assert told.stdout == "a result\n"
    lines = [line for line in told.stderr.splitlines() if line.startswith("train x")]
    assert [line.split(" · ")[0] for line in lines] == ["train x 1/4", "train x 2/4", "train x 3/4"]
    assert lines[-1].split(" · ")[3:] == FIGURES
    assert told.stderr.splitlines()[-1] == "error: field = 1: it is bad. Mend it."
    assert "\x1b" not in told.stderr


def test_a_line_now_and_then_and_the_last_one(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "rate", seconds=1000) as bar:
        bar.update()
        bar.update(2)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "rate 3/3 · 0:00:00\n")


def test_tokens_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(240_000, "train x", counted=["tokens/step_sampled"]) as bar:
        bar.update(1, {"tokens/step_sampled": 2500})
    with progress(900, "collect x", unit="tokens") as bar:
        bar.update(300)
    told = [line.partition(" · ")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["train x 2,500/240,000 tokens", "collect x 300/900 tokens"]


def test_a_resumed_run_and_a_budget_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(40, "train", done=16, seconds=1000) as bar:
        bar.update(1, {"step": 17, "loss": 0.5})
        bar.update(1, {"step": 18, "loss": 0.25})
    with progress(9000, "train", done=4000, counted=["tokens/step_sampled"], seconds=1000) as bar:
        bar.update(1, {"step": 17, "tokens/step_sampled": 3000})
    resumed, budget = capsys.readouterr().err.splitlines()
    assert resumed == "train 18/40 · 0:00:00 · 0:00:00 left · loss 0.25"
    assert budget == "train 7,000/9,000 tokens · 0:00:00 · 0:00:00 left"


def test_the_most_telling_numbers() -> None:
    assert figures(STEP) == FIGURES
    assert figures({"loss": 0.125, "time/update": 2.0}) == ["loss 0.125", "update 2.0 s"]
    many = {f"progress/phase_{name}": 0.0 for name in "abcdefgh"}
    assert figures(many) == ["progress a +0.00", *(f"{name} +0.00" for name in "bcdef"), "…"]


def test_items_are_packed_into_lines() -> None:
    assert packed(["ab", "cd", "a long one"], 8) == ["ab · cd", "a long one"]
