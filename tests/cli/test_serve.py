"""`backtrack-mrt serve`: what becomes of a run's settings. The server itself is tried by tests/policy (marked)."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backtrack_mrt.cli.commands import serve
from backtrack_mrt.cli.main import main
from backtrack_mrt.errors import UserError

ROOT = Path(__file__).parents[2]


def test_a_server_is_started_from_the_settings_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[Any] = []
    monkeypatch.setattr(serve, "find_spec", lambda name: name)
    monkeypatch.setattr(os, "execve", lambda program, words, environment: started.append((words[1:], environment)))
    line = ["--model.dtype", "bfloat16", "--model.lora.r", "20", "--engine.context_length", "512", "--port", "8001"]
    main(["serve", *line, "--", "--tensor-parallel-size", "2"])
    ((words, environment),) = started
    assert words[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    flags = dict(pairwise(words))
    assert (Path(flags["--model"]) / "config.json").is_file()
    assert (flags["--dtype"], flags["--max-lora-rank"], flags["--max-model-len"]) == ("bfloat16", "32", "512")
    assert words[-2:] == ["--tensor-parallel-size", "2"]
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    module, _, name = flags["--logits-processors"].partition(":")
    assert f"class {name}" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    main(["serve", "--model.full_finetuning", "true"])
    assert not any("lora" in word for word in started.pop()[0])
    adapter = tmp_path / "adapter_config.json"
    adapter.write_text('{"base_model_name_or_path": "tiny"}')
    for flags_of_a_run, refused in (
        (["--model.name_or_path", str(tmp_path)], "backtrack-mrt export"),
        (["--model.lora.r", "513"], "up to rank 512"),
    ):
        with pytest.raises(UserError, match=refused):
            main(["serve", *flags_of_a_run])
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        main(["serve"])
    assert len(started) == 1


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (
            ["--training.problems_per_step", "3", "--training.micro_batch_size", "7"],
            r"training\.micro_batch_size .* not divisible by it",
        ),
        (["--compare", "grpo"], "--compare: a server has no use for it"),
        (["--tune_seeds", "1"], "--tune-seeds: a server has no use for it"),
        (["--dry-run", "h100"], "--dry-run: a server has no use for it"),
        (["--port", "99999"], "--port.* from 1 to 65535"),
        (["--port", "0"], "--port.* from 1 to 65535"),
    ],
)
def test_what_a_server_cannot_do_is_refused(flags: list[str], match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=match):
        main(["serve", *flags])
