"""Whole runs with any settings together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "dev" / "settings.py"


@pytest.mark.slow
def test_settings_together_train_or_are_refused() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--n", "24"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.splitlines()[-1].split(" ended")[0]) > 12
