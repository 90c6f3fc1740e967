"""Coverage-guided fuzzing of what reads untrusted text: the turn parser, the grader's guards, files of trajectories.

    python scripts/dev/fuzz.py parser --seconds 1200 --corpus .fuzz/parser

Needs the extra `fuzz` (atheris). The inputs start from what the tests say; the targets are in
tests/support/fuzz_targets.py. An input that breaks a promise is written to the corpus directory's parent, and the exit
code is not 0.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from backtrack_mrt.errors import UserError, run_main

ROOT = Path(__file__).parents[2]
LONGEST = 4096  # bytes of an input
HANG_S = 30  # a single input may take so long on a busy machine; honest ones take milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("target", choices=["parser", "guards", "records"])
    add("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    add("--corpus", type=Path, help="keep interesting inputs here and go on from them (default: nowhere)")
    add("--seed", type=int, default=1, help="of the mutations (default: %(default)s)")
    args = parser.parse_args()
    if find_spec("atheris") is None:
        raise UserError("TARGET", args.target, "atheris is not installed", "pip install 'backtrack-mrt[fuzz]'.")
    with tempfile.TemporaryDirectory() as nowhere:
        corpus = args.corpus or Path(nowhere) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        fuzz(args.target, args.seconds, corpus, args.seed)


def fuzz(target: str, seconds: int, corpus: Path, seed: int) -> None:
    """Runs until the time is up or a promise is broken, then ends the process."""
    import atheris

    sys.path.insert(0, str(ROOT / "tests"))
    with atheris.instrument_imports(include=["backtrack_mrt", "support.fuzz_targets"]):
        from support import fuzz_targets
    for number, text in enumerate(fuzz_targets.seeds(target)):
        (corpus / f"seed_{number:05d}").write_bytes(text[:LONGEST])
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={HANG_S}", f"-seed={seed}"]
    artifacts = f"-artifact_prefix={corpus.parent}/{target}-"
    # Bytes of a JSON text are seldom changed into another one: its values are.
    structured = {"custom_mutator": lambda *args: fuzz_targets.odd_json(*args, atheris.Mutate)}
    arguments = [sys.argv[0], *options, artifacts, "-print_final_stats=1", str(corpus)]
    atheris.Setup(arguments, fuzz_targets.TARGETS[target], **structured if target == "records" else {})
    atheris.Fuzz()


if __name__ == "__main__":
    run_main(main)
