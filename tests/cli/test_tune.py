"""`--tune`: as many trials for every algorithm, never on what is reported."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import command

from backtrack_mrt.cli.request import comparison_requests, trials
from backtrack_mrt.config.trials import Trial, read_grid, settings_of
from backtrack_mrt.errors import UserError
from backtrack_mrt.training.tune import check_validation

BUDGET = ["--training.sampled_tokens", "2000"]
RATES = ["training.learning_rate", "3e-4", "1e-3", "3e-3"]


def tried(*flags: str) -> dict[str, list[Trial]]:
    line = ["--algo", "mrt-rl", "--compare", "grpo", "rise", *BUDGET, *flags]
    return trials(line, comparison_requests(line))


def test_every_algorithm_has_as_many_trials() -> None:
    found = tried("--tune", *RATES, "training.problems_per_step", "8", "32", "algorithms.rise.candidates", "2", "4")
    assert {algo: len(several) for algo, several in found.items()} == {"mrt-rl": 6, "grpo": 6, "rise": 6}
    for algo, several in found.items():
        grid = {(t.config.training.learning_rate, t.config.training.problems_per_step) for t in several}
        assert len(grid) == 6
        assert {t.config.algo for t in several} == {algo}
        assert {tuple(t.config.data.eval) for t in several} == {("signs/validation",)}
        # As many trajectories, however many an update has.
        assert len({t.config.training.steps * t.config.training.rows for t in several}) == 1
    assert Counter(t.config.algorithm.model_dump()["candidates"] for t in found["rise"]) == {2: 3, 4: 3}
    assert "candidates" not in found["grpo"][0].settings


@given(st.integers(1, 6), st.integers(1, 7))
def test_an_algorithm_s_own_values_take_turns(rates: int, own: int) -> None:
    values = [str(k) for k in range(own)]
    grid = {"training.learning_rate": [f"1e-{k}" for k in range(rates)], "algorithms.star.iterations": values}
    found = settings_of(grid, "star")
    assert [s["training.learning_rate"] for s in found] == grid["training.learning_rate"]
    counts = Counter(s["algorithms.star.iterations"] for s in found)
    assert max(counts.values()) - min(counts[value] for value in values) <= 1
    assert all("algorithms.star.iterations" not in s for s in settings_of(grid, "rise"))
    assert settings_of(grid, "star") == found  # the same way every time


def test_every_value_of_every_field_is_tried() -> None:
    own = ["algorithms.rise.candidates", "2", "4", "algorithms.rise.iterations", "1", "2", "3"]
    for found in (
        tried("--tune", *RATES, *own)["rise"],
        tried("--tune", *RATES, "training.epochs", "1", "2", *own)["rise"],
    ):
        settings = [trial.config.algorithm.model_dump() for trial in found]
        assert {setting["candidates"] for setting in settings} == {2, 4}
        assert {setting["iterations"] for setting in settings} == {1, 2, 3}
    assert len({(setting["candidates"], setting["iterations"]) for setting in settings}) == 6  # room for all pairs


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--tune", "3e-4"], "a value without a field"),
        (["--tune", "training.learning_rate"], "no value to try"),
        (["--tune", *RATES, "training.learning_rate", "1"], "named twice"),
        (["--tune", "protocol.max_revisions", "1", "2"], "what is compared must agree in it"),
        (["--tune", "data.seed", "1", "2"], "what is compared must agree in it"),
        (["--tune", "training.sampled_tokens", "1", "2"], "what is compared must agree in it"),
        (["--tune", "algorithms.rise.candidates", "2", "4"], "only single algorithms"),
        (["--tune", *RATES, "algorithms.star.iterations", "2"], "no algorithm of this comparison"),
        (["--tune", "training.learning_rat", "1"], r"--tune training.learning_rat.*Did you mean"),
        (["--tune", "training.learning_rate", "fast"], "--tune training.learning_rate"),
        (["--tune", *RATES, "--seeds", "10000"], "a seed that chose must not be reported"),
        (["--tune", *RATES, "--tune-seeds", "0"], "a seed that chose must not be reported"),
        (["--tune", *RATES, "--tune-seeds", "5", "5"], "--tune-seeds = 5: it is given twice"),
        (["--seeds", "0", "1", "0"], "--seeds = 0: it is given twice"),
        (["--tune-seeds", "5"], "there is nothing to tune"),
        (["--tune", "training.learning_rate", "1e-3", "1e-3"], "given twice"),
        (["--tune", "training.learning_rate", "1e-3", "0.001"], "given twice"),
        (["--tune", *RATES, "algorithms.rise.candidates", "2", "02"], "rise.candidates = 2: it is given twice"),
        (["--tune", *RATES[:3], "algorithms.rise.candidates", "2", "4", "8"], "3 values, and 2 trials"),
        (
            ["--tune", *RATES, "algorithms.grpo.alpha", "1", "2"],
            r"--tune algorithms\.grpo\.alpha = '2'.*Did you mean 'algorithms\.grpo\.unit'",
        ),
        (
            ["--tune", "training.problems_per_step", "1", "7"],
            " 8 traj.*; .* 56 traj.*a number that divides all of these",
        ),
    ],
)
def test_what_would_not_be_fair_is_refused(flags: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        tried(*flags)


def test_trials_need_a_budget() -> None:
    line = ["--tune", *RATES]
    with pytest.raises(UserError, match="trials must have equal tokens"):
        trials(line, comparison_requests(line))


@pytest.mark.parametrize("sets", [[], ["signs/test"], ["math500"], ["signs/validation", "signs/train"]])
def test_what_is_reported_chooses_nothing(sets: list[str]) -> None:
    config: Any = comparison_requests([])[0].config
    data = config.data.model_copy(update={"validation": sets, "eval": ["signs/train"]})
    with pytest.raises(UserError, match=r"data\.validation"):
        check_validation(config.model_copy(update={"data": data}))


def test_a_dry_run_lists_all_runs() -> None:
    flags = ["--compare", "rise", "--seeds", "0", "1", "--equal", "sampled", "total", *BUDGET]
    found = command("train", *flags, "--tune", *RATES, "algorithms.rise.candidates", "2", "4", "--dry-run", "h100")
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert "tuning mrt-rl: 3 runs on signs/validation" in lines
    assert "  1. learning_rate 3e-4" in lines
    assert lines[-1].startswith("final: 6 runs on signs/test: mrt-rl, rise, seeds 0 1 (others at equal sampled and ")


def test_words_become_a_grid() -> None:
    assert read_grid(["training.learning-rate", "1", "algorithms.mrt-rl.answer-weight", "2"]) == {
        "training.learning_rate": ["1"],
        "algorithms.mrt-rl.answer_weight": ["2"],
    }
    assert read_grid([*RATES, "algorithms.mrt-rl.alpha", "1"]) == {
        "training.learning_rate": ["3e-4", "1e-3", "3e-3"],
        "algorithms.mrt-rl.alpha": ["1"],
    }
