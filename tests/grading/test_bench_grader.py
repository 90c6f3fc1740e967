"""The grader as a service, in small: every verdict as expected, with bombs among the answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "grader.py"


def test_honest_answers_and_bombs() -> None:
    command = [sys.executable, str(SCRIPT), "--n", "100", "--bombs", "0.08", "--cpu-s", "0.3", "--generated"]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert done.stdout.startswith("100 grades, 8 bombs")
    odd = re.findall(r"NOT AS EXPECTED: (\w+)", done.stdout)
    assert set(odd) <= {"timeout"}, done.stdout  # an honest one, on a very busy machine
    assert done.returncode == bool(odd)
    assert "timeout" in done.stdout
