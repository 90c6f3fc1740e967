"""The benchmark of a step at scale, at the smallest scale; and what benchmarks of too few steps say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from support.scripts import imported

from backtrack_mrt.cli.request import read_request

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    return imported(SCRIPTS / "bench" / "large.py")


def test_every_trajectory_has_the_tokens_asked_for(bench: Any, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 512}
    config = tmp_path / "shape.yaml"
    config.write_text(f"model: {{name_or_path: nowhere/none, dtype: bfloat16, architecture: {shape}}}")
    flags = ["--config", "tiny.yaml", str(config), "--training.steps", "2", "--training.problems_per_step", "2"]
    flags += ["--training.group_size", "2", "--training.micro_batch_size", "2", "--output-dir", str(tmp_path / "run")]
    title, *parts, peak = bench.measured(read_request(flags).config, 160, "h100")
    length = int(re.search(r"4 trajectories of (\d+) tokens", title)[1])  # type: ignore[index]
    assert 150 <= length <= 175, "up to an instruction more or less"
    assert [line.split()[0] for line in parts] == ["rollout", "meta-prover", "update"]
    for line in parts:
        share = re.search(r"tokens/s +([\d.]+)% of the roofline", line)
        assert share is not None
        assert 0 <= float(share[1]) < 100
    memory = re.fullmatch(r"peak memory (\d+\.\d\d) GiB, planned ([\d.]+)", peak)
    assert memory is not None
    assert 0 < float(memory[2]) < float(memory[1])  # the process has PyTorch, too


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("step", ["--training.steps", "3"]),
        ("floor", ["--training.steps", "1"]),
        ("guards", ["--steps", "1"]),
        ("asynchronous", ["--training.steps", "2"]),
        ("../dev/soak", ["--steps", "19"]),
    ],
)
def test_too_few_steps_are_a_mistake_of_one_line(
    name: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    monkeypatch.setattr(sys, "argv", [name, *flags])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPTS / "bench" / f"{name}.py"), run_name="__main__")
    assert re.fullmatch(r"error: \S*steps = \d+: [^\n]* Take [^\n]*more[^\n]*\.\n", capsys.readouterr().err)
