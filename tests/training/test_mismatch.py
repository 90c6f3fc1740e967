"""The engine's logprobs beside the trainer's: measured for every engine, corrected where they differ."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from support.short_runs import SHORT

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.policy.hf import runner
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.models import load_policy
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.train import train

MEAN = "sampling/sampling_logp_difference/mean"
RATIO = "sampling/importance_sampling_ratio/max"


def logged(folder: Path, dtype: str) -> dict[str, float]:
    """The last step's metrics, when there is an adapter that does something."""
    train(read_request(["--output-dir", str(folder), *SHORT, "--training.steps", "2", "--model.dtype", dtype]))
    return RunDir(folder).metrics()[-1]


def test_in_float32_the_engine_is_exact(tmp_path: Path) -> None:
    metrics = logged(tmp_path / "run", "float32")
    assert 0 < metrics[MEAN] < 1e-5
    assert metrics[RATIO] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_in_bfloat16_both_sides_compute_alike_and_the_rest_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = logged(tmp_path / "alike", "bfloat16")
    assert 1e-4 < alike[MEAN] < 5e-3
    assert alike[RATIO] > 1.001
    monkeypatch.setattr(runner, "as_trained", lambda model: nullcontext())
    assert logged(tmp_path / "apart", "bfloat16")[MEAN] > alike[MEAN]


def test_only_float32_is_called_exact() -> None:
    for dtype in ("float32", "bfloat16"):
        section = read_request(["--model.dtype", dtype]).config.model
        assert HFEngine(load_policy(section, 0)[0], max_rows=2).exact == (dtype == "float32")
