"""Documented commands are run: as they stand there, but for flags behind them that make them short.

`test_docs.py` reads all of them. Here are those that need no hub, GPU or server, on runs of the embedded model.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.command_line import command
from support.documents import files_in, our_commands
from support.short_runs import request

from backtrack_mrt.cli.command import parser_of
from backtrack_mrt.training.train import train

pytestmark = pytest.mark.slow

ELSEWHERE = (  # another model, a set of the hub, a server, a file of one's own, or what `test_readme.py` runs
    r"\.yaml|--server|meta-llama|smollm2|math500|aime24|gsm8k|mawps|asdiv|held_out\.csv|rated\.jsonl|choose|second_look"
)
WHOLE = r"--resume|--compare|--dry-run|--tune|--help"  # of `train`: tests of their own run these
MENTIONED = ("--traces", "--demonstrations")  # without a file behind them
SHORT = [
    *("--data.eval_size", "4", "--data.train_size", "40", "--evaluation.extra_revisions", "1"),
    *("--evaluation.samples", "2", "--prover.samples", "2"),
    *("--training.steps", "1", "--training.sampled_tokens", "null", "--training.micro_batch_size", "8"),
    *("--training.problems_per_step", "4", "--training.group_size", "4"),
]
NAMED = {"runs/RUN": "runs/A", "RUN": "runs/A", "runs/demo": "runs/A", "MODEL": "tiny", "FILE": "answers.jsonl"}
NAMED |= dict.fromkeys(("OURS.jsonl", "THEIRS.jsonl", "BASE.jsonl"), "FILE.jsonl")
RUN_HERE = {
    " ".join(words): words
    for line, words in our_commands().items()
    if len(words) > 1
    and words[0] not in ("serve", "--print-completion")
    and words[-1] not in MENTIONED
    and not re.search(ELSEWHERE, line)
    and not (words[0] == "train" and re.search(WHOLE, line))
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody has trained twice, and has the files that the documents name."""
    place = tmp_path_factory.mktemp("workplace")
    for name, algo in (("A", "mrt-rl"), ("B", "grpo")):
        train(request(place / "runs" / name, *SHORT, algo=algo))
    shutil.copy(place / "runs" / "A" / "trajectories" / "evaluation_trained.jsonl", place / "FILE.jsonl")
    for document in ("README.md", "docs/algorithms.md", "docs/conformance.md"):
        for name, source in files_in(document).items():
            (place / name).write_text(source)
    (place / "answers.jsonl").write_text('{"gold": "1/2", "answer": "0.5"}\n')
    assert command("warm-start", "--out", "own", *SHORT, "--training.steps", "4", cwd=place).returncode == 0
    shutil.copy(place / "own" / "backtrack.jsonl", place / "demos.jsonl")
    return place


def test_they_are_of_every_kind() -> None:
    kinds = {words[0] for words in RUN_HERE.values()}
    assert kinds >= {"train", "evaluate", "compare", "report", "play", "show", "audit", "checks", "calibrate", "export"}
    assert len(RUN_HERE) > 35


@pytest.mark.parametrize("line", RUN_HERE)
def test_they_run(line: str, workplace: Path, tmp_path: Path) -> None:
    name, *words = RUN_HERE[line]
    words = [NAMED.get(word, word.replace("runs/RUN/", "runs/A/")) for word in words]
    if name == "train":
        words += ["--output-dir", str(tmp_path / "run")]
    if "--out" in words:  # what is written there once is refused, or gone on with, the next time
        words[words.index("--out") + 1] = str(tmp_path / "out")
    own = name == "report" and "--traces" not in words  # a run's report has the run's settings
    short = SHORT if parser_of(name).takes_settings and not own else []
    told = command(name, *words, *short, cwd=workplace)
    assert told.returncode == 0, told.stderr
