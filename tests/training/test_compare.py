"""Several runs, one after the other: stopped in between, or with some that break down or fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import finished

from backtrack_mrt.cli.main import main
from backtrack_mrt.cli.request import comparison_requests, trials
from backtrack_mrt.config import RunRequest
from backtrack_mrt.errors import Collapsed, Interrupted, UserError
from backtrack_mrt.evaluation.compared_runs import gain
from backtrack_mrt.runs import interrupts
from backtrack_mrt.training.compare import train_and_compare
from backtrack_mrt.training.tune import tune

TRAIN = "backtrack_mrt.training.finishing.train"


def done(request: RunRequest, accuracy: float | None = 0.6) -> None:
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


class Pretended:
    """Stands for `train`: some runs, by algorithm and seed, break down or fail."""

    def __init__(self, broken: Sequence[tuple[str, int]] = (), failing: Sequence[tuple[str, int]] = ()) -> None:
        self.broken, self.failing, self.trained = broken, failing, list[tuple[str, int]]()

    def __call__(self, request: RunRequest, **_: Any) -> None:
        run = request.config.algo, request.config.seed
        self.trained.append(run)
        if run in self.failing:
            raise UserError("algo", "grpo", "its turn_weights raised ValueError: a bug of mine", "Mend it.")
        done(request, None if run in self.broken else 0.6)
        if run in self.broken:
            raise Collapsed("3 steps in a row had numbers that are not finite", "Lower training.learning_rate.")


LINE = ["--algo", "mrt-rl", "--compare", "grpo", "--training.sampled_tokens", "1000"]


def test_a_run_that_breaks_down_counts_as_never_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the table and the headline, in which no seed is missing; and it is not trained again, but where asked to."""
    pretended = Pretended(broken=[("grpo", 2), ("grpo", 3)])
    monkeypatch.setattr(TRAIN, pretended)
    found = train_and_compare(comparison_requests(LINE), range(4), tmp_path)
    assert found.seeds == [0, 1, 2, 3]
    assert [gain(run) for run in found.runs["grpo"]] == pytest.approx([0.1, 0.1, -0.5, -0.5])
    assert found.headline().endswith("at equal tokens, 4 seeds. Counted as never right: grpo broke down in 2 of 4.")
    text = found.markdown()
    assert "- broke down: grpo-seed2: 3 steps in a row had numbers that are not finite." in text
    assert "| grpo (2 broke down) | 0.300 [" in text
    assert found.failed == ()

    pretended.trained.clear()
    assert train_and_compare(comparison_requests(LINE), range(4), tmp_path).markdown() == text
    assert pretended.trained == []
    monkeypatch.setattr("backtrack_mrt.training.finishing.check_inputs", lambda *_: None)
    train_and_compare(comparison_requests([*LINE, "--accept-changes"]), range(4), tmp_path)
    assert pretended.trained == [("grpo", 2), ("grpo", 3)]


def test_a_run_that_fails_is_named_with_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRAIN, Pretended(failing=[("grpo", 2), ("grpo", 3)]))
    found = train_and_compare(comparison_requests(LINE), range(4), tmp_path)
    assert found.seeds == [0, 1]
    told = "Not counted: grpo failed in seeds 2, 3; seeds 2, 3 left out for all, also where others have finished."
    assert found.headline().endswith(f", 2 seeds. {told}")
    assert told in found.markdown()
    alone = train_and_compare(comparison_requests(LINE), [2], tmp_path / "alone")
    assert alone.headline().endswith("1 seed. Not counted: grpo failed in seed 2.")


def test_the_reference_of_equal_tokens_has_not_broken_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRAIN, Pretended(broken=[("mrt-rl", 0)]))
    found = train_and_compare(comparison_requests(["--compare", "grpo"]), [0], tmp_path)
    assert found.runs["grpo"][0].config.training.token_budget is None
    assert "equal tokens" not in found.headline()
    assert "nan" not in found.markdown()


def test_a_mistake_in_a_plug_in_is_no_breakdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the tuning in its own words, and the trial is done again next time."""
    line = [*LINE, "--tune", "training.learning_rate", "1e-3", "--tune-seeds", "7"]
    requests = comparison_requests(line)
    monkeypatch.setattr(TRAIN, Pretended(failing=[("grpo", 7)]))
    with pytest.raises(UserError, match="a bug of mine"):
        tune(trials(line, requests), requests[0], tmp_path)
    monkeypatch.setattr(TRAIN, mended := Pretended())
    _, tuning = tune(trials(line, requests), requests[0], tmp_path)
    assert mended.trained == [("grpo", 7)]
    assert [tried.accuracy for tried in tuning.tried] == [0.6, 0.6]
