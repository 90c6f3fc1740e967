"""Tuning: the best of each algorithm is kept, what breaks down is shown, what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import finished

from backtrack_mrt.cli.request import comparison_requests, trials
from backtrack_mrt.config import RunRequest
from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.tuning import Tried, Tuning, read_tuning
from backtrack_mrt.runs.finished import Run, ended_run, read_run
from backtrack_mrt.training.compare import equal_tokens, train_and_compare, with_best
from backtrack_mrt.training.tune import tune

LINE = ["--algo", "mrt-rl", "--compare", "grpo", "--training.sampled_tokens", "1000"]
TUNED = [*LINE, "--tune", "training.learning_rate", "3e-4", "1e-3", "3e-3", "--tune-seeds", "7", "8"]
ACCURACY = {("mrt-rl", 3e-4): 0.6, ("mrt-rl", 1e-3): 0.7, ("mrt-rl", 3e-3): 0.65}
ACCURACY |= {("grpo", 3e-4): 0.55, ("grpo", 1e-3): 0.3, ("grpo", 3e-3): None}  # the last one breaks down

SEEDS = ((7, 0.7, 0.5), (8, 0.7, 0.5), (9, None, None))


class Pretended:
    """Stands for `finished_run`: says how well each run would go."""

    def __init__(self) -> None:
        self.asked: list[RunRequest] = []

    def __call__(self, request: RunRequest, base: Path | None = None) -> Run:
        config = request.config
        path = config.run_path
        if ended_run(path) is None:
            self.asked.append(request)
            accuracy = ACCURACY[config.algo, config.training.learning_rate]
            prover = 200 if config.algo == "mrt-rl" else 0
            total = config.training.total_tokens
            flags = {"training__total_tokens": str(total)} if total else {}
            held_out = f"[{config.data.eval[0]}]"
            finished(path, config.algo, config.seed, accuracy, prover=prover, data__eval=held_out, **flags)
        run = ended_run(path)
        assert run is not None
        return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended()
    for module in ("tune", "compare"):
        monkeypatch.setattr(f"backtrack_mrt.training.{module}.finished_run", pretended)
    return pretended


def test_the_best_of_each_is_kept_and_nothing_is_done_twice(run: Pretended, tmp_path: Path) -> None:
    flags = [*TUNED, "--data.validation_size", "48"]
    requests = comparison_requests(flags)
    tried = trials(flags, requests)
    best, tuning = tune(tried, requests[0], tmp_path)
    assert {algo: trial.config.training.learning_rate for algo, trial in best.items()} == {"mrt-rl": 1e-3, "grpo": 3e-4}
    assert len(run.asked) == 2 * 3 * 2
    assert {(*request.config.data.eval, request.config.data.eval_size) for request in run.asked} == {
        ("signs/validation", 48)
    }
    assert read_tuning(tmp_path) == tuning
    header, *rows = tuning.rows()
    assert [row[0] for row in rows] == ["mrt-rl"] * 3 + ["grpo"] * 3
    assert [row[header.index("kept")] for row in rows] == ["", "**kept**", "", "**kept**", "", ""]
    assert rows[4][header.index("gain")].startswith("-0.200")  # a collapse counts as it is
    assert rows[5][2:5] == ["broke down", "broke down", "1,000"]
    assert "not finite" in rows[5][-1]

    run.asked.clear()
    assert tune(tried, requests[0], tmp_path)[1] == tuning
    assert run.asked == []

    chosen = with_best(requests, best)
    assert [request.config.data.eval for request in chosen] == [["signs/test"]] * 2
    comparison = train_and_compare(chosen, [0, 1], tmp_path, tuning)
    text = comparison.markdown()
    assert "Settings were chosen on signs/validation" in text
    assert "seeds 7, 8" in text
    assert json.loads(json.dumps(comparison.as_json()))["tuning"][5]["accuracy"] is None


def test_a_table_tells_what_the_choice_counts() -> None:
    seeds = [Tried("grpo", 1, {}, seed, "run", acc, base, {"sampled": 4}) for seed, acc, base in SEEDS]
    row = Tuning((), seeds).rows()[1]
    assert row[2:5] == ["0.700 ± 0.000 (2 of 3 seeds)", "+0.200 ± 0.000 (2 of 3 seeds); counted as -0.200", "4"]


def test_nothing_is_kept_where_all_break_down(run: Pretended, tmp_path: Path) -> None:
    line = [*LINE, "--tune", "training.learning_rate", "3e-3"]
    requests = comparison_requests(line)
    with pytest.raises(RunError, match="every trial of grpo broke down"):
        tune(trials(line, requests), requests[0], tmp_path)


def test_other_mistakes_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_: Any) -> Run:
        raise UserError("model.name_or_path", "x", "no such model", "Name one.")

    monkeypatch.setattr("backtrack_mrt.training.tune.finished_run", missing)
    requests = comparison_requests(TUNED)
    with pytest.raises(UserError, match="no such model"):
        tune(trials(TUNED, requests), requests[0], tmp_path)


def test_too_few_validation_problems_are_told_before_any_trial(run: Pretended, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(f'{{"question": "{n} + 1?", "answer": "{n + 1}"}}\n' for n in range(3)), encoding="utf-8")
    flags = [*TUNED, "--data.validation", str(own)]
    for size in [], ["--data.validation_size", "3"]:
        requests = comparison_requests([*flags, *size])
        tune(trials(flags, requests), requests[0], tmp_path / str(len(size)))
    requests = comparison_requests([*flags, "--data.validation_size", "4"])
    run.asked.clear()
    with pytest.raises(UserError, match=r"data\.validation_size = 4: the data set has only 3 problems"):
        tune(trials(flags, requests), requests[0], tmp_path / "more")
    assert run.asked == []


def test_equal_in_both_ledgers(run: Pretended, tmp_path: Path) -> None:
    """The first algorithm trains once; the others until they have as many sampled tokens, and as many in all."""
    requests = comparison_requests([*LINE, "--training.learning_rate", "3e-4", "--equal", "sampled", "total"])
    comparison = train_and_compare(requests, [0, 1], tmp_path)
    assert (tmp_path / "comparison.md").is_file()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        *("grpo-seed0", "grpo-seed1", "grpo-total-seed0", "grpo-total-seed1", "mrt-rl-seed0", "mrt-rl-seed1")
    ]
    budgets = {r.config.run_path.name: r.config.training for r in run.asked}
    assert (budgets["grpo-seed0"].sampled_tokens, budgets["grpo-seed0"].total_tokens) == (1000, None)
    assert (budgets["grpo-total-seed0"].sampled_tokens, budgets["grpo-total-seed0"].total_tokens) == (None, 1210)
    header, ours, theirs = comparison.ledger_rows()
    assert header[1:5] == ["gain, equal sampled tokens", "− mrt-rl's", "gain, equal total tokens", "− mrt-rl's"]
    assert ours[1] == ours[3] == "+0.100 [0.100, 0.100]"
    assert theirs[4].startswith("-0.050")
    assert comparison.tokens_apart("total") == pytest.approx(200 / 1210)


def test_a_budget_of_its_own_is_left_alone() -> None:
    requests = comparison_requests(["--training.total_tokens", "77"])
    training = requests[0].config.training
    assert equal_tokens(training, "total", None) == training


def test_a_budget_is_whole_tokens(tmp_path: Path) -> None:
    spent = read_run(finished(tmp_path / "run", "mrt-rl", 0, 0.6))
    training = comparison_requests(["--training.steps", "2"])[0].config.training
    assert isinstance(equal_tokens(training, "sampled", spent).sampled_tokens, int)


def test_runs_of_one_ledger_are_compared_in_it(tmp_path: Path) -> None:
    paths = [finished(tmp_path / a, a, 0, 0.6, training__total_tokens="1015") for a in ("mrt-rl", "grpo")]
    comparison = Comparison([read_run(path) for path in paths])
    assert comparison.ledger_rows()[1][1:4] == ["–", "–", "+0.100"]
