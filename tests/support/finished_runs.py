"""Run directories of runs that were never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.runs.finished import has_broken_down


def finished(
    path: Path, algo: str, seed: int, accuracy: float | None, sampled: int = 1000, prover: int = 5, **flags: str
) -> Path:
    """A run directory as a finished run leaves it, or, without an accuracy, one that broke down. flags: settings, with
    two underscores for a dot."""
    arguments = [part for name, value in flags.items() for part in (f"--{name.replace('__', '.')}", value)]
    config = read_request(["--algo", algo, "--seed", str(seed), "--output-dir", str(path), *arguments]).config
    run = RunDir.create(config)

    def side(mean: float) -> dict[str, Any]:
        estimate = {"mean": mean, "low": mean, "high": mean, "n": 100}
        curve = {"budgets": [0, 10, 20], "accuracy": [estimate | {"mean": k * mean / 2} for k in range(3)]}
        curve["tokens"] = [estimate | {"mean": k * 10} for k in range(3)]
        names = (
            "accuracy",
            "accuracy_prolonged",
            "tokens",
            "normalised_regret",
            "normalised_regret_frozen",
            "right_step",
        )
        return dict.fromkeys((*names, "wrong_to_right", "right_to_wrong"), estimate) | {
            "protocol": {"backtracks": estimate},
            "moves": {"backtrack": {"progress": estimate}},
            "regret": {"128": estimate, "1024": estimate | {"mean": 1 - mean}},
            "regret_frozen": {"128": estimate, "1024": estimate | {"mean": 0.9 - mean}},
            "acc_at_turn": [estimate],
            "maj_at_k": [estimate],
            "sets": {},
            "curve": curve,
        }

    if accuracy is None:
        run.log_evaluation(0, "base", side(0.5) | {"ledger": {}})
        run.log(1, {"tokens/step_sampled": sampled, "tokens/step_prover": prover})
        has_broken_down(path, "3 steps in a row had numbers that are not finite. Lower training.learning_rate.")
        return path
    ledger = {"sampled": sampled, "env": 10, "prover": prover, "total": sampled + 10 + prover}
    summary = {"base": side(0.5), "trained": side(accuracy), "tokens": {"training": ledger}, "seconds": {"train": 1.0}}
    run.save("summary.json", {"algo": algo, "trained_answers": 4} | summary)
    return path
