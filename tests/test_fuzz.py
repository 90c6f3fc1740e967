"""The fuzz targets on what they start from, without a fuzzer; and that the fuzzer runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.fuzz_targets import TARGETS, odd_json, seeds

SCRIPT = Path(__file__).parents[1] / "scripts" / "dev" / "fuzz.py"


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_break_no_promise(target: str) -> None:
    inputs = list(seeds(target))
    assert len(inputs) > 1
    for data in inputs[:: max(len(inputs) // 300, 1)]:
        TARGETS[target](data)


def test_odd_records_break_no_promise() -> None:
    """What fuzzing found: odd values in any place of a record, numbers without end, texts without UTF-8."""
    first, *others = seeds("records")
    for data in (first, *others):
        for seed in range(200):
            data = odd_json(data, 4096, seed, lambda text, longest: first)
            TARGETS["records"](data)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="no atheris: pip install 'backtrack-mrt[fuzz]'")
@pytest.mark.parametrize("target", TARGETS)
def test_a_few_seconds_of_fuzzing(target: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), target, "--seconds", "3", "--corpus", str(tmp_path / target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stat::number_of_executed_units" in done.stderr
