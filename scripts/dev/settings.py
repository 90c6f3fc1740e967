#!/usr/bin/env python
"""Settings together: whole runs of two updates, each with some settings away from their defaults. Every one must end
well, or be refused in one line per mistake before a model is loaded.

    python scripts/dev/settings.py --n 100                           # some together, with any algorithm and protocol
    python scripts/dev/settings.py --n 20 --only training.kl         # that one among them
    python scripts/dev/settings.py --alone                           # each value by itself, `mrt-rl` on `backtrack`

Exit code 1 if one fails.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm
from backtrack_mrt.cli.main import main as command
from backtrack_mrt.errors import Collapsed, UserError, run_main
from backtrack_mrt.protocol import EpisodeProtocol

ALGORITHMS = ["mrt-rl", "grpo", "rise", "star", "mrt-star", "star-shortest", "brpo", "igpo", "length-penalty"]
PROTOCOLS = ["backtrack", "single", "retry", "inline", "open-ended"]
SMALL = (
    "--data.eval_size 4 --data.train_size 32 --training.steps 2 --training.problems_per_step 2 --training.group_size 4 "
    "--training.micro_batch_size 4"
)
VALUES = {  # away from what configs/tiny.yaml says
    "algorithm.unit": ("turn", "trajectory"),
    "algorithm.answer_weight": ("0", "0.5"),
    "algorithm.alpha": ("0", "2"),
    "algorithm.credit": ("turn", "return_to_go", "prefix"),
    "algorithm.gae_lambda": ("0", "1"),
    "algorithm.baseline": ("value",),
    "algorithm.prefix_baseline": ("terminated",),
    "algorithm.scale_outcome": ("true",),
    "protocol.token_budget": ("24", "400"),
    "protocol.max_revisions": ("0", "1", "6"),
    "protocol.forced_checks": ("1", "3"),
    "model.dtype": ("bfloat16",),
    "model.full_finetuning": ("true",),
    "model.gradient_checkpointing": ("true",),
    "model.lora.r": ("1", "64"),
    "model.lora.targets": ("q_proj v_proj", "all-linear"),
    "data.train": ("signs/train", "countdown/train"),
    "data.v0": ("0.1 0.9",),
    "data.canaries": ("0.5",),
    "data.seed": ("7",),
    "engine.max_rows": ("1", "3"),
    "engine.compiled": ("true", "false"),
    "prover.estimator": ("likelihood", "monte_carlo", "greedy", "none"),
    "prover.policy": ("reference",),
    "prover.samples": ("1", "3"),
    "prover.temperature": ("0.5",),
    "prover.top_p": ("0.5",),
    "prover.max_answer_tokens": ("1",),
    "prover.suffix": ("So",),
    "prover.calibration": ("0", "4"),
    "training.sampled_tokens": ("600",),
    "training.total_tokens": ("900",),
    "training.first_budget": ("0.4",),
    "training.budget_stages": ("0.5 1",),
    "training.problems_per_step": ("1", "3"),
    "training.group_size": ("2", "8"),
    "training.micro_batch_size": ("1", "2"),
    "training.lr_schedule": ("constant", "linear"),
    "training.warmup_ratio": ("0", "1"),
    "training.weight_decay": ("0",),
    "training.max_grad_norm": ("0.01",),
    "training.temperature": ("0.3", "3"),
    "training.loss": ("grpo",),
    "training.clip": ("0.01",),
    "training.importance_cap": ("1",),
    "training.asynchronous": ("true",),
    "training.kl": ("0.1",),
    "training.epochs": ("2",),
    "training.saved_rollouts": ("0", "1"),
    "training.save_every": ("0", "1"),
    "training.keep_checkpoints": ("1",),
    "grading.forms": ("equivalent",),
    "grading.workers": ("1",),
    "evaluation.every": ("1",),
    "evaluation.samples": ("3",),
    "evaluation.small_set_samples": ("4",),
    "evaluation.temperature": ("0", "0.7"),
    "evaluation.extra_revisions": ("1", "3.5"),
    "evaluation.budgets": ("0.1 4",),
    "evaluation.frozen_prover": ("false",),
    "evaluation.extra_rounds": ("2 4",),
    "evaluation.linearised_revisions": ("4",),
    "evaluation.window": ("1",),
    "evaluation.forced_answers": ("3",),
}


def alone(only: Sequence[str]) -> Iterator[list[str]]:
    """Flags: each value by itself."""
    for name in only or VALUES:
        for value in VALUES[name]:
            yield ["--algo", "mrt-rl", *_flag(name, value)]


def together(n: int, seed: int, only: Sequence[str]) -> Iterator[list[str]]:
    """Flags: `n` draws of some values, one of `only` among them."""
    rng = random.Random(seed)
    for _ in range(n):
        algo, env = rng.choice(ALGORITHMS), rng.choice(PROTOCOLS)
        own = {
            "algorithm": plugins.load("backtrack_mrt.algos", algo, Algorithm, "algo").model_fields,
            "protocol": plugins.load("backtrack_mrt.envs", env, EpisodeProtocol, "env").model_fields,  # type: ignore[type-abstract]
        }
        known = [name for name in VALUES if (parts := name.split("."))[0] not in own or parts[1] in own[parts[0]]]
        names = rng.sample(known, rng.randint(1, 4)) + ([rng.choice(only)] if only else [])
        drawn = [part for name in dict.fromkeys(names) for part in _flag(name, rng.choice(VALUES[name]))]
        yield ["--algo", algo, "--env", env, *drawn]


def _flag(name: str, value: str) -> list[str]:
    return [f"--{name}", *value.split()]


def outcome(flags: list[str], folder: Path) -> str:
    """ "ended", "refused", or what is wrong with how it ended."""
    told = folder / "told.txt"
    try:
        with told.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            code = command(["train", *SMALL.split(), *flags, "--output-dir", str(folder / "run")])
    except Collapsed:  # self-training keeps none of two updates' worth of trajectories
        return "ended"
    except UserError as refusal:
        print(f"refused: {' '.join(flags)}: {refusal}", flush=True)
        late = "Loading weights" in told.read_text(encoding="utf-8")
        return "refused after the model was loaded" if late else "refused"
    except BaseException:
        return f"a traceback: {traceback.format_exc()[-1500:]}"
    return "ended" if not code else f"exit code {code}: {told.read_text(encoding='utf-8')[-300:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="runs (default: %(default)s)")
    parser.add_argument("--alone", action="store_true", help="each value by itself, instead of draws")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--only", nargs="+", default=[], choices=VALUES, metavar="SETTING", help="of the list")
    args = parser.parse_args()
    ended = Counter[str]()
    for flags in alone(args.only) if args.alone else together(args.n, args.seed, args.only):
        with tempfile.TemporaryDirectory() as folder:
            found = outcome(flags, Path(folder))
        if found not in ("ended", "refused"):
            print(f"WRONG: {' '.join(flags)}: {found}", flush=True)
            found = "wrong"
        ended[found] += 1
    print(", ".join(f"{count} {how}" for how, count in sorted(ended.items())))
    return bool(ended["wrong"])


if __name__ == "__main__":
    run_main(main)
