"""Training to a budget of tokens, in either ledger."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from support.short_runs import request

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.budgets import StopAtBudget, counted_tokens
from backtrack_mrt.training.train import train
from backtrack_mrt.types import TokenLedger

pytestmark = pytest.mark.usefixtures("no_reports")

STEP = TokenLedger(sampled=100, env=30, prover=20)


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize(
    ("field", "budget", "steps"),
    [
        ("sampled_tokens", 310, 3),
        ("sampled_tokens", 351, 4),
        ("total_tokens", 310, 2),
        ("total_tokens", 524, 3),
        ("total_tokens", 526, 4),
    ],
)
def test_training_ends_at_the_step_nearest_to_the_budget(field: str, budget: int, steps: int, updates: int) -> None:
    training = read_request([f"--training.{field}", str(budget)]).config.training
    ledgers: list[TokenLedger] = []
    stop, control = StopAtBudget(training, lambda: ledgers), SimpleNamespace(should_training_stop=False)
    args, state = SimpleNamespace(logging_steps=updates), SimpleNamespace(global_step=0)
    while not control.should_training_stop:
        if state.global_step % updates == 0:
            ledgers.append(STEP)
        state.global_step += 1
        stop.on_step_end(args, state, control)
    assert len(ledgers) == steps
    assert state.global_step == steps * updates
    assert sum(STEP.as_json()[name.removeprefix("tokens/step_")] for name in counted_tokens(training)) == (
        training.spent(STEP)
    )


def test_two_budgets_are_refused() -> None:
    with pytest.raises(UserError, match=r"total_tokens.* = 9: training\.sampled_tokens is a budget, too"):
        read_request(["--training.sampled_tokens", "9", "--training.total_tokens", "9"])


@pytest.mark.slow
def test_a_run_counts_the_prover_too(tmp_path: Path) -> None:
    found = train(request(tmp_path, "--training.total_tokens", "5000", "--data.eval_size", "8", algo="mrt-star"))
    ledger = found.ledgers["training"]
    assert ledger.prover > 0
    assert ledger.total == pytest.approx(5000, rel=0.25)  # a batch is about a third of that


def test_an_iteration_without_room_does_not_begin(tmp_path: Path) -> None:
    """RISE's first batch takes more than the whole budget: what it costs is not known before."""
    flags = ("--training.sampled_tokens", "300", "--data.eval_size", "2", "--algorithm.candidates", "2")
    found = train(request(tmp_path, *flags, "--algorithm.criterion", "all", algo="rise"))
    rows = RunDir(tmp_path).metrics()
    assert [row["iteration"] for row in rows if "iteration" in row] == [1]
    assert rows[0]["tokens/step_sampled"] == found.ledgers["training"].sampled > 300
