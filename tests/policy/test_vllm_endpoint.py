"""The endpoint for jobs in the app of `backtrack-mrt serve`, with a stand-in for vLLM's engine, so that no model is
loaded. The whole is held to test_engine_contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.engine_subjects import NEEDS_VLLM

from backtrack_mrt.cli.commands.serve import server_command
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.policy.vllm.jobs import PATH, WEIGHTS_PATH, Job, as_json, forced, sampled
from backtrack_mrt.types import Sampling

pytestmark = NEEDS_VLLM
JOBS = [
    Job((1, 2, 3), 4, sampled(2**64 - 1, Sampling(0.6, 0.8)), [5, 7]),
    Job((4,), 2, forced((8, 9), (9, 10))),
    Job((6, 6), 1, sampled(0, Sampling())),
]


class Echo:
    """An engine that says the prompt, after some `seconds`."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds, self.running, self.most = seconds, 0, 0
        self.asked: list[tuple[Any, ...]] = []
        self.done: list[str] = []

    async def pause_generation(self, *, mode: str) -> None:
        assert mode == "wait"
        self.done.append("pause")

    async def resume_generation(self) -> None:
        self.done.append("resume")

    async def collective_rpc(self, method: str, *, kwargs: dict[str, str]) -> None:
        assert method == "reload_weights"
        self.done.append(kwargs["weights_path"])

    async def generate(self, prompt: Any, params: Any, name: str, *, lora_request: Any) -> AsyncIterator[Any]:
        ids = prompt["prompt_token_ids"]
        self.asked.append((ids, params, name, lora_request))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds * ids[-1])  # the second job is not the second that ends
        finally:
            self.running -= 1
        steps = [{token: SimpleNamespace(logprob=-0.1 * token)} for token in ids]
        yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, logprobs=steps)], num_cached_tokens=len(ids) - 1)


def state(engine: Echo) -> dict[str, Any]:
    """What vLLM's app knows."""
    from vllm.entrypoints.openai.models.protocol import BaseModelPath

    models = SimpleNamespace(
        lora_requests={"adapter": "its weights"},
        is_base_model=lambda name: name == "base",
        base_model_paths=[BaseModelPath("base", "")],
    )
    config = SimpleNamespace(model_type="llama", vocab_size=11)
    model = SimpleNamespace(get_vocab_size=lambda: 11, max_model_len=7, hf_config=config)
    served = SimpleNamespace(model_config=model, lora_config=None)
    return {"engine_client": engine, "openai_serving_models": models, "vllm_config": served, "log_stats": False}


@pytest.fixture
def engine() -> Echo:
    return Echo()


@pytest.fixture
def client(engine: Echo) -> Iterator[Any]:
    """Of the app that the flags of `serve` make, with a key."""
    from starlette.testclient import TestClient
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    flags = [*server_command(read_request([], training=False).config, "127.0.0.1", 8000)[2:], "--api-key", "secret"]
    app = build_app(make_arg_parser(FlexibleArgumentParser()).parse_args(flags), ("generate",))
    for name, value in state(engine).items():
        setattr(app.state, name, value)
    with TestClient(app, headers={"Authorization": "Bearer secret"}) as client:
        yield client


def body(**changed: Any) -> dict[str, Any]:
    return {"model": "adapter", "max_rows": 2, "jobs": as_json(JOBS)} | changed


def test_a_chunk_is_answered_in_order_each_job_as_it_says(client: Any, engine: Echo) -> None:
    answer = client.post(PATH, json=body())
    assert answer.status_code == 200
    assert [row["token_ids"] for row in answer.json()] == [list(job.prompt_ids) for job in JOBS]
    assert answer.json()[0] == {"token_ids": [1, 2, 3], "logprobs": [-0.1, -0.2, -0.1 * 3], "cached": 2}
    assert engine.most == 2
    assert len({name for _, _, name, _ in engine.asked}) == 3
    for job, (_, params, _, lora) in zip(JOBS, engine.asked, strict=True):
        assert (params.extra_args, params.max_tokens, params.stop_token_ids) == (
            job.draw,
            job.max_new_tokens,
            job.stop_ids,
        )
        assert lora == "its weights"
    client.post(PATH, json=body(model="base"))
    assert engine.asked[-1][-1] is None


def test_what_is_refused(client: Any, engine: Echo) -> None:
    assert client.post(PATH, json=body(), headers={"Authorization": "Bearer guessed"}).status_code == 401
    unknown = client.post(PATH, json=body(model="gone"))
    assert (unknown.status_code, "gone" in unknown.text) == (404, True)
    assert client.post(PATH, json=body(jobs=[{}])).status_code == 400
    assert client.post(PATH, json=body(max_rows=0)).status_code == 400
    for odd in (Job((11,), 1, forced((1,))), Job((1,), 1, forced((11,))), Job((1,), 7, forced((1,) * 7))):
        answer = client.post(PATH, json=body(jobs=as_json([JOBS[0], odd])))
        assert (answer.status_code, "Job 1: " in answer.text) == (400, True)
    assert engine.asked == []


def test_all_weights_are_exchanged_between_rows_and_have_a_name(client: Any, engine: Echo, tmp_path: Path) -> None:
    known = client.app.state.openai_serving_models.base_model_paths
    config = tmp_path / "config.json"
    weights = {"name": "second", "path": str(tmp_path)}
    assert client.post(WEIGHTS_PATH, json=weights).status_code == 400  # there are none
    config.write_text('{"model_type": "llama", "vocab_size": 12}')
    refused = client.post(WEIGHTS_PATH, json=weights)
    assert (refused.status_code, "vocab_size is 12, here 11" in refused.text) == (400, True)
    assert (engine.done, len(known)) == ([], 1)
    config.write_text('{"model_type": "llama", "vocab_size": 11}')
    for name in ("second", "third", "third"):
        assert client.post(WEIGHTS_PATH, json=weights | {"name": name}).status_code == 200
        assert [each.name for each in known] == ["base", name]
    assert engine.done == ["pause", str(tmp_path), "resume"] * 2
    client.app.state.vllm_config.lora_config = "of adapters"
    assert client.post(WEIGHTS_PATH, json=weights).status_code == 400


def test_nothing_goes_on_for_a_client_that_went_away() -> None:
    from fastapi import Request

    from backtrack_mrt.policy.vllm.endpoint import Chunk, answer_chunk

    async def gone() -> dict[str, str]:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def ask() -> int:
        engine = Echo(seconds=600)
        app = SimpleNamespace(state=SimpleNamespace(**state(engine)))
        await answer_chunk(Chunk("base", 2, JOBS), raw_request=Request({"type": "http", "app": app}, gone))
        assert engine.most == 2
        await asyncio.sleep(0)
        return engine.running

    assert asyncio.run(ask()) == 0
