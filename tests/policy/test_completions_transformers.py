"""A second real server: `transformers serve`, which answers in text and tells no logprobs.

`make test-vllm` runs it: vLLM's environment has what the server needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.server_process import served_by_transformers

import backtrack_mrt as bt
from backtrack_mrt.cli.main import main
from backtrack_mrt.credit import served_prover
from backtrack_mrt.data import signs
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.completions import CompletionsEngine
from backtrack_mrt.policy.files import EMBEDDED, TINY
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.types import Request, Sampling, Trajectory

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")),
        reason="no transformers[serving]: make test-vllm",
    ),
]


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return bt.assemble(bt.load_config())


@pytest.fixture(scope="module")
def trajectories(parts: Assembly) -> list[Trajectory]:
    collector = parts.collector(parts.config.protocol, with_values=False)
    return [s.trajectory for s in collector.collect(signs.generate("test", 2, seed=5), [1, 2], 1.0).scored]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded model, told to sample: by itself this server takes the likeliest tokens of most models."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(files("backtrack_mrt.policy") / EMBEDDED[TINY], folder)
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"do_sample": True, "top_k": 0}))
    with served_by_transformers(folder) as address:
        yield address


def test_it_completes(parts: Assembly, trajectories: list[Trajectory], url: str) -> None:
    engine = CompletionsEngine(url, parts.tokenizer, scoring=False)
    assert (engine.speaks_ids, engine.scores) == (False, False)
    asked = [Request(t.prompt_ids, 64, seed) for seed, t in enumerate(trajectories)]
    stops = parts.dialogue.chat.stop_ids
    greedy = engine.generate(asked, Sampling(0.0, stop_ids=stops))
    truth = parts.engine.generate(asked, Sampling(0.0, stop_ids=stops))
    assert [c.token_ids for c in greedy] == [c.token_ids for c in truth]
    engine.close()


def test_it_has_values(parts: Assembly, trajectories: list[Trajectory], url: str) -> None:
    terse = {"env": "backtrack", "prompts": "terse"}
    with pytest.raises(UserError, match=r"no logprobs.*take sampled answers"):
        served_prover(url, parts.tokenizer, **terse)
    truth = parts.prover(parts.config.prover.model_copy(update={"estimator": "greedy"})).values(trajectories)
    greedy = served_prover(url, parts.tokenizer, estimator="greedy", **terse).values(trajectories)
    assert [row.tolist() for row in greedy] == [row.tolist() for row in truth]
    (sampled,) = served_prover(url, parts.tokenizer, estimator="monte_carlo", samples=4, **terse).values(
        trajectories[:1]
    )
    assert set(sampled * 4) <= {0, 1, 2, 3, 4}


def test_it_is_audited(url: str, tmp_path: Path) -> None:
    size = ["--data.eval_size", "2", "--protocol.max_revisions", "1", "--evaluation.extra_revisions", "1"]
    asked = ["audit-thinking", "--server", url, *size, "--votes", "0", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"does not say what it serves.*--model"):
        main(asked)
    with pytest.raises(UserError, match="no logprobs"):
        main([*asked, "--model", "tiny"])
    main([*asked, "--model", "tiny", "--prover.estimator", "greedy"])
    scored = read_trajectories(tmp_path / "out" / "traces.jsonl")
    assert len(scored) == 2
    assert all(set(s.values.tolist()) <= {0.0, 1.0} for s in scored if s.values is not None)
