"""The benchmark of several servers, against two that answer like vLLM's."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from support.fake_vllm_server import FakeServer

from backtrack_mrt.config import ModelSection
from backtrack_mrt.policy.models import load_merged

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "servers.py"


def test_two_servers_draw_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_merged(ModelSection()).eval()
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    with FakeServer(model).running() as one, FakeServer(model).running() as other:
        flags = ["--engine.type", "vllm", "--engine.server", one.url, other.url, "--rounds", "1"]
        flags += ["--training.problems_per_step", "1", "--training.group_size", "2", "--training.micro_batch_size", "2"]
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *flags, "--output-dir", str(tmp_path / "run")])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not ended.value.code
    told = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(": ")[:-1] for line in told] == [["servers", "1"], ["servers", "2"], ["2 / 1"]]
