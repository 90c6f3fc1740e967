"""Run directories of runs that were never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.runs.directory import RunDir


def finished(
    path: Path, algo: str, seed: int, accuracy: float, sampled: int = 1000, prover: int = 5, **flags: str
) -> Path:
    """A run directory as a finished run leaves it. flags: settings, with two underscores for a dot."""
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

    ledger = {"sampled": sampled, "env": 10, "prover": prover, "total": sampled + 10 + prover}
    summary = {"base": side(0.5), "trained": side(accuracy), "tokens": {"training": ledger}, "seconds": {"train": 1.0}}
    run.save("summary.json", {"algo": algo, "trained_answers": 4} | summary)
    return path
