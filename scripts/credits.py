#!/usr/bin/env python
"""Every credit beside the others: `turn`, `return_to_go`, `prefix`, `gae` with three λ, and `brpo`.

    python scripts/credits.py                                        # five seeds, equal sampled and equal total tokens
    python scripts/credits.py --seeds 0 --training.sampled_tokens 60000 --equal sampled --runs /tmp/credits

Each credit becomes an algorithm of its own, a file in RUNS/algorithms, and all of them one comparison of
`backtrack-mrt train`, which goes on where it was stopped. Takes its flags, `--tune` and `--dry-run` among them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from backtrack_mrt.errors import run_main

CREDITS = {  # file → settings of `mrt-rl`
    "turn": {"credit": "turn"},
    "return_to_go": {"credit": "return_to_go"},
    "prefix": {"credit": "prefix"},
    "prefix_terminated": {"credit": "prefix", "prefix_baseline": "terminated"},
    "gae_0": {"credit": "gae", "gae_lambda": 0.0},
    "gae_50": {"credit": "gae", "gae_lambda": 0.5},
    "gae_95": {"credit": "gae", "gae_lambda": 0.95},
}
SETTINGS = ["--training.sampled_tokens", "240000"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2", "3", "4"], metavar="SEED")
    parser.add_argument("--equal", nargs="+", default=["sampled", "total"], metavar="LEDGER", help="sampled, total")
    parser.add_argument("--runs", type=Path, default=Path("runs/credits"), metavar="FOLDER", help="run directories")
    args, flags = parser.parse_known_args()
    first, *others = [str(path) for path in written(args.runs / "algorithms")]
    command = ["train", *SETTINGS, *flags, "--algo", first, "--compare", *others, "brpo"]
    command += ["--seeds", *args.seeds, "--equal", *args.equal, "--output-dir", str(args.runs)]
    raise SystemExit(subprocess.run([sys.executable, "-m", "backtrack_mrt", *command], check=False).returncode)


def written(folder: Path) -> list[Path]:
    """The credits as plug-ins in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, settings in CREDITS.items():
        fields = "".join(f"    {field}: {type(value).__name__} = {value!r}\n" for field, value in settings.items())
        title = "".join(word.title() for word in name.split("_"))
        path = folder / f"{name}.py"
        path.write_text(
            "from backtrack_mrt.algos.mrt_rl import MrtRl\n\n\n"
            f'class {title}Credit(MrtRl):\n    """`mrt-rl` with the credit of this file\'s name."""\n\n{fields}',
            encoding="utf-8",
        )
        paths.append(path)
    return paths


if __name__ == "__main__":
    run_main(main)
