"""scripts/dev/hacks.py: attempts to be paid without the answer, by kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "dev" / "hacks.py"


def test_none_is_paid() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--n", "3000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("3000 attempts, 0 paid\n")
