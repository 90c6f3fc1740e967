"""Comparisons: over seeds, between algorithms, at equal sampled tokens."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from rich.console import Console
from support.finished_runs import finished
from support.pictures import pictures

from backtrack_mrt.cli.request import comparison_requests
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.compared_runs import efficiency
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.effects import effects
from backtrack_mrt.evaluation.metrics.estimates import over_seeds
from backtrack_mrt.reports.build import report_comparison
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.training.compare import train_and_compare

SHORT = [
    *("--training.steps", "2", "--training.problems_per_step", "4", "--training.group_size", "4"),
    *("--training.micro_batch_size", "8", "--data.eval_size", "12", "--data.train_size", "40"),
]
ALL = ["rise", "star", "grpo", "length-penalty", "mrt-star"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    """Every algorithm, made short. RISE samples several candidates, so its steps are coarse: give it few."""
    requests = comparison_requests([*SHORT, "--algo", "mrt-rl", "--compare", *ALL])
    found = train_and_compare(requests, [0], folder)
    found.write(folder)
    with pictures():
        report_comparison(found, folder)
    return found


def test_every_algorithm_is_in_one_table(comparison: Comparison, folder: Path) -> None:
    assert [label.split(" ")[0] for label in comparison.runs] == ["mrt-rl", *ALL]
    text = (folder / "comparison.md").read_text()
    assert all(f"| {algo}" in text for algo in ("base", "mrt-rl", *ALL))
    data = json.loads((folder / "comparison.json").read_text())
    assert set(data["algorithms"]) == set(comparison.runs)
    for name in ("accuracy", "regret", "acc_at_turn", "progress_backtrack", "changed_answers", "training_length"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5_000
    page = (folder / "report.html").read_text()
    assert all(f'<th scope="col">{label}</th>' in page for label in comparison.runs)


def test_the_base_is_evaluated_once_and_the_data_are_the_same(comparison: Comparison, folder: Path) -> None:
    bases = {
        (run.path / "trajectories" / "evaluation_base.jsonl").read_text() for r in comparison.runs.values() for run in r
    }
    assert len(bases) == 1
    evaluated = [run.summary["tokens"]["evaluation"]["sampled"] for r in comparison.runs.values() for run in r]
    assert evaluated[0] > max(evaluated[1:])  # the first run's holds the base's as well


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    comparison: Comparison, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    monkeypatch.setattr(
        "backtrack_mrt.training.finishing.train", lambda request, base_evaluation: trained.append(request)
    )
    requests = comparison_requests([*SHORT, "--algo", "mrt-rl", "--compare", *ALL])
    assert list(train_and_compare(requests, [0], folder).runs) == list(comparison.runs)
    assert trained == []
    (folder / "grpo-seed0" / "summary.json").rename(folder / "grpo-seed0" / "hidden")
    without = train_and_compare(requests, [0], folder)  # a run that fails sinks no other, and is named
    assert "grpo" not in without.runs
    assert len(without.runs) == len(comparison.runs) - 1
    assert "it has not finished" in without.failed[0]
    assert "- failed: grpo, seed 0: " in without.markdown()
    (folder / "grpo-seed0" / "hidden").rename(folder / "grpo-seed0" / "summary.json")
    assert [request.config.algo for request in trained] == ["grpo"]


def test_a_finished_run_of_another_config_is_not_taken(comparison: Comparison, folder: Path) -> None:
    requests = comparison_requests([*SHORT, "--algo", "mrt-rl", "--algorithm.alpha", "3"])
    with pytest.raises(UserError, match=r"alpha: 3\.0 against 1\.0"):
        train_and_compare(requests, [0], folder)


def test_flags_of_the_algorithm_belong_to_the_first() -> None:
    first, other = comparison_requests(["--algo=mrt-rl", "--algorithm.alpha=2", "--compare", "grpo", "--seed", "7"])
    assert first.config.algorithm.model_dump()["alpha"] == 2
    assert other.config.algo == "grpo"
    assert other.config.seed == 7
    assert first.config.training == other.config.training


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--compare", "grop"], "Did you mean 'grpo'"),
        (["--compare", "grpo", "grpo"], "named twice"),
        (["--algo", "grpo", "--compare", "grpo"], "named twice"),
        (["--seeds", "one"], "invalid int"),
        (["--compare", "rise", "--protocol.max_revisions", "0"], "gives none"),
    ],
)
def test_what_cannot_be_compared_is_refused(flags: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        comparison_requests(flags)


def test_over_seeds_is_students_interval() -> None:
    assert over_seeds([1.0, 2.0, 3.0]).mean == 2.0
    # t(0.975, 2) = 4.3027, sd 1, √3
    assert over_seeds([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.302653 / math.sqrt(3))
    assert math.isnan(over_seeds([5.0]).low)


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    runs = [finished(tmp_path / f"m{s}", "mrt-rl", s, 0.6 + 0.1 * s) for s in range(3)]
    runs += [finished(tmp_path / f"g{s}", "grpo", s, 0.5 + 0.1 * s, sampled=1030) for s in (2, 0, 1)]
    found = Comparison([read_run(path) for path in runs])
    difference = found.difference("grpo", lambda run: run.mean("trained", "accuracy"))
    assert difference.mean == pytest.approx(-0.1)
    assert difference.high - difference.low == pytest.approx(0, abs=1e-9)
    assert found.estimate("grpo", lambda run: run.mean("trained", "accuracy")).low < 0.5
    assert found.tokens_apart() == pytest.approx(0.03)
    assert "| grpo | 0.600 [0.352, 0.848]" in found.markdown()
    assert found.headline().endswith("at equal tokens, 3 seeds.")


def test_one_algorithm_is_equal_to_nothing(tmp_path: Path) -> None:
    found = Comparison([read_run(finished(tmp_path / "m", "mrt-rl", 0, 0.6))])
    assert found.headline() == "mrt-rl gains +0.100 in accuracy over the base, 1 seed."


def test_the_terminal_s_table_fits_80_columns(tmp_path: Path) -> None:
    """Nothing of a number is cut off, also with six algorithms and three seeds, and with a long label."""
    algos = ["mrt-rl", "grpo", "length-penalty", "rise", "star", "mrt-star"]
    pairs = [(algo, i, seed) for i, algo in enumerate(algos) for seed in (0, 1, 2)]
    runs = [finished(tmp_path / f"{a}{seed}", a, seed, 0.5 + 0.03 * seed + 0.01 * i) for a, i, seed in pairs]
    runs += [finished(tmp_path / f"w{s}", "mrt-rl", s, 0.6, algorithm__credit="return_to_go") for s in (0, 1, 2)]
    console = Console(width=80, record=True, file=io.StringIO())
    found = Comparison([read_run(path) for path in runs])
    console.print(found.table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for i, algo in enumerate(algos):
        difference = rf"\{0.01 * i:+.3f} ± 0\.000" if i else ""
        assert re.search(rf"\b{algo} +{0.53 + 0.01 * i:.3f} ± 0\.075 +{difference} ", text)


def test_a_policy_that_is_never_right_has_no_efficiency(tmp_path: Path) -> None:
    never = read_run(finished(tmp_path / "never", "mrt-rl", 0, 0.0))
    assert math.isnan(efficiency(never))
    assert efficiency(read_run(finished(tmp_path / "some", "mrt-rl", 0, 0.8))) == pytest.approx(0.8 / 0.5)


def test_effects_are_read_off_the_runs(tmp_path: Path) -> None:
    gains = {"mrt-rl": (0.8, 0.82), "grpo": (0.6, 0.64), "length-penalty": (0.5, 0.9), "rise": (0.7, 0.7)}
    runs = [finished(tmp_path / f"{a}{s}", a, s, gains[a][s]) for a in gains for s in range(2)]
    comparison = Comparison([read_run(path) for path in runs])
    given = {label: [0.1 * place, 0.2 * place] for place, label in enumerate(reversed(comparison.runs))}
    every = effects(comparison, {}, given)
    found = {e.name: e for e in every}
    assert found["1 gain"].estimate.mean == pytest.approx(0.19)
    beyond = found["3 regret beyond, each policy's own values"]
    assert (beyond.estimate.mean, beyond.verdict) == (pytest.approx(-0.19), "shown")
    assert found["1 gain, the paper's size"].estimate.mean == pytest.approx((3 + 0.32 / 0.14) / 2)
    assert found["3 regret beyond, one prover"].estimate.mean == pytest.approx(-0.19)
    assert found["4 length penalty: accuracy"].estimate.mean == pytest.approx(-0.11)
    assert found["4 length penalty: accuracy"].verdict == "not shown"
    # The same given attempts: the 3 of mrt-rl against the 2 of grpo and the 0 of rise.
    assert [e.estimate.mean for e in every if e.name == "6 progress"] == pytest.approx([0.15, 0.45])
    # Both curves rise to their accuracy at 20 tokens: .9 of grpo's .6 is reached after 18 and after 13.5 tokens.
    assert found["2 token efficiency"].estimate.mean == pytest.approx((0.8 / 0.6 + 0.82 / 0.64) / 2)
    warm = {"backtrack": [0.1, 0.2], "star": [0.2, 0.3], "rise": [0.2, 0.4]}
    losses = [e for e in effects(comparison, warm, given) if e.name == "5 warm-start loss"]
    assert [e.estimate.mean for e in losses] == [pytest.approx(-0.1), pytest.approx(-0.05)]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"data__eval_size": "64"}, "its data differs.*eval_size: 1024 against 64"),
        ({"protocol__max_revisions": "5"}, "its protocol differs"),
        ({"model__lora__r": "4"}, "its model differs"),
        ({"prover__policy": "reference"}, "its prover differs"),
    ],
)
def test_runs_that_are_not_comparable_are_refused(tmp_path: Path, flags: dict[str, str], reason: str) -> None:
    runs = [finished(tmp_path / "a", "mrt-rl", 0, 0.6), finished(tmp_path / "b", "grpo", 0, 0.6, **flags)]
    with pytest.raises(UserError, match=reason):
        Comparison([read_run(path) for path in runs])


def test_other_seeds_are_refused(tmp_path: Path) -> None:
    runs = [finished(tmp_path / "a", "mrt-rl", 0, 0.6), finished(tmp_path / "b", "grpo", 1, 0.6)]
    with pytest.raises(UserError, match="same seeds"):
        Comparison([read_run(path) for path in runs])
    with pytest.raises(UserError, match="a folder of runs, and no run"):
        read_run(tmp_path)


def test_a_seed_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    run = read_run(finished(tmp_path / "a", "mrt-rl", 0, 0.6))
    with pytest.raises(UserError, match=r"several runs with one seed: \[0, 0\]"):
        Comparison([run, run])


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ((("total", 1015), ("sampled", 1000)), "at equal tokens"),
        ((("total", 1015), ("sampled", 2000)), "at sampled tokens that differ by up to 100%"),
        ((("total", 1015), ("total", 1015)), "at equal tokens"),
        ((("total", 1015), ("total", 1515)), "at total tokens that differ by up to 49%"),
    ],
)
def test_equal_is_said_of_tokens_that_are(tmp_path: Path, budgets: tuple[tuple[str, int], ...], told: str) -> None:
    runs = []
    for algo, (ledger, tokens) in zip(("mrt-rl", "grpo"), budgets, strict=True):
        sampled = tokens - 15 * (ledger == "total")
        budget = {f"training__{ledger}_tokens": str(tokens)}
        runs.append(read_run(finished(tmp_path / algo, algo, 0, 0.6, sampled=sampled, **budget)))
    assert f", {told}, 1 seed." in Comparison(runs).headline()


@pytest.mark.parametrize("left", ["", '{"step": 3}\n'])
def test_a_log_without_a_step_that_was_evaluated_is_told(tmp_path: Path, left: str) -> None:
    run = RunDir(finished(tmp_path / "a", "mrt-rl", 0, 0.6))
    run.log_evaluation(4, "step_000004", {"ledger": {}})
    run.metrics_path.write_text(left)
    with pytest.raises(UserError, match=r"metrics\.jsonl.*no line for step 4"):
        read_run(run.path)


def test_results_by_set_and_the_base_s_votes(tmp_path: Path) -> None:
    """The base votes with as many tokens as a trajectory of the policy takes: here, one and a half samples."""
    paths = [finished(tmp_path / a, a, 0, accuracy) for a, accuracy in (("mrt-rl", 0.8), ("grpo", 0.7))]
    for path in paths:
        summary = json.loads((path / "summary.json").read_text())
        for side, accuracy, tokens in (("base", 0.5, 40), ("trained", 0.8, 60)):
            votes = [{"mean": accuracy + 0.1 * k, "low": None, "high": None, "n": 9} for k in range(2)]
            one = {"accuracy": votes[0], "tokens": votes[0] | {"mean": tokens}, "maj_at_k": votes}
            summary[side] |= {"sets": {"aime24": one, "average": one}}
        (path / "summary.json").write_text(json.dumps(summary))
    rows = Comparison([read_run(path) for path in paths]).set_rows()
    assert rows == [
        ["algorithm", "aime24", "average"],
        ["base", "0.500", "0.500"],
        ["base, maj@k at mrt-rl's tokens", "0.550", "0.550"],
        ["mrt-rl", "0.800", "0.800"],
        ["grpo", "0.800", "0.800"],
    ]
