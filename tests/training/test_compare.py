"""Several runs, one after the other: stopped in between, or with some that break down or fail."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import finished

from backtrack_mrt.cli.main import main
from backtrack_mrt.config import RunRequest
from backtrack_mrt.errors import Interrupted
from backtrack_mrt.runs import interrupts

TRAIN = "backtrack_mrt.training.finishing.train"


def done(request: RunRequest, accuracy: float = 0.6) -> None:
    """Leave what a finished run leaves."""
    training = request.config.training
    budget = {"training__sampled_tokens": str(training.sampled_tokens)} if training.sampled_tokens else {}
    budget |= {"data__eval": f"[{request.config.data.eval[0]}]"}
    finished(request.config.run_path, request.config.algo, request.config.seed, accuracy, **budget)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("tuned", [[], ["--tune", "training.learning_rate", "1e-3"]])
def test_no_run_begins_once_somebody_has_asked_to_stop(
    number: signal.Signals,
    code: int,
    tuned: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where the signal comes behind the last safe point of a run."""
    begun = []

    def asked_late(request: RunRequest, **_: Any) -> None:
        begun.append(request.config.run_path.name)
        with interrupts.deferred():
            done(request)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TRAIN, asked_late)
    line = ["--seeds", "0", "1", "--training.sampled_tokens", "1000", "--output-dir", str(tmp_path / "x"), *tuned]
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        main(["train", "--algo", "grpo", *line])
    assert stopped.value.code == code
    assert len(begun) == 1
    assert signal.getsignal(number) is before
    assert "1 finished run and what there was" in (told := capfd.readouterr().err)
    assert "go on with: backtrack-mrt train --algo grpo --seeds 0 1" in told
