"""Where a vLLM server takes a chunk of jobs in one request, each with a seed, a length and stop tokens of its own:
`vllm serve … --middleware backtrack_mrt.policy.vllm.endpoint.JobEndpoint`.

OpenAI's completions have one set of sampling parameters for all prompts of a request, so that every row would be a
request of its own.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.serve.utils.api_utils import with_cancellation
from vllm.exceptions import VLLMNotFoundError, VLLMValidationError
from vllm.inputs import tokens_input

from backtrack_mrt.policy.vllm.draws import answer_of, params_of
from backtrack_mrt.policy.vllm.jobs import PATH, WEIGHTS_PATH, Drawn, Job, as_json

_LOADING = asyncio.Lock()
_SHAPE = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The body of a request. model: the base or an adapter of it. max_rows: jobs under way at once."""

    model: str
    max_rows: int
    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class Weights:
    """The body of a request. name: what they are asked for by from then on. path: directory with a whole model."""

    name: str
    path: str


class JobEndpoint:
    """Middleware that adds the routes as the server starts: behind what asks for the key, which itself would not."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on."""
        if scope["type"] == "lifespan":
            scope["app"].add_api_route(PATH, answer_chunk, methods=["POST"])
            scope["app"].add_api_route(WEIGHTS_PATH, take_weights, methods=["POST"])
        await self._app(scope, receive, send)


@with_cancellation  # type: ignore[untyped-decorator]
async def answer_chunk(chunk: Chunk, raw_request: Request) -> Response:
    """The answers in order. Nothing goes on for a client that went away, nothing begins for one that asks for what
    cannot be done."""
    state, name = raw_request.app.state, uuid4().hex
    models, config = state.openai_serving_models, state.vllm_config.model_config
    lora = models.lora_requests.get(chunk.model)
    if lora is None and not models.is_base_model(chunk.model):
        raise VLLMNotFoundError(f"The model `{chunk.model}` does not exist.")
    if chunk.max_rows < 1:
        raise VLLMValidationError(f"max_rows is {chunk.max_rows}, and at least one row must be under way.")
    for number, job in enumerate(chunk.jobs):
        if objection := job.objection(config.get_vocab_size(), config.max_model_len):
            raise VLLMValidationError(f"Job {number}: {objection}.")
    room = asyncio.Semaphore(chunk.max_rows)

    async def answer(number: int, job: Job) -> Drawn:
        prompt = tokens_input(list(job.prompt_ids))
        async with room:
            asked = state.engine_client.generate(prompt, params_of(job), f"{name}-{number}", lora_request=lora)
            (output,) = [output async for output in asked]
        return answer_of(output)

    answers = await asyncio.gather(*(answer(number, job) for number, job in enumerate(chunk.jobs)))
    return Response(json.dumps(as_json(answers)), media_type="application/json")


async def take_weights(weights: Weights, raw_request: Request) -> Response:
    """Exchange all weights of the model, between two rows. Those of before have no name any more."""
    state = raw_request.app.state
    engine, known = state.engine_client, state.openai_serving_models.base_model_paths
    if state.vllm_config.lora_config is not None:
        raise VLLMValidationError("It was started for adapters, not for a run with model.full_finetuning.")
    _check_shape(Path(weights.path), state.vllm_config.model_config.hf_config)
    async with _LOADING:
        if all(model.name != weights.name for model in known):
            await engine.pause_generation(mode="wait")  # which also drops the prefix cache
            try:
                del known[1:]  # the first is what the server was started with
                await engine.collective_rpc("reload_weights", kwargs={"weights_path": weights.path})
                known.append(BaseModelPath(weights.name, weights.path))
            finally:
                await engine.resume_generation()
    return Response("{}", media_type="application/json")


def _check_shape(folder: Path, served: Any) -> None:
    """An engine that is given weights of another model would be left with some of them."""
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VLLMValidationError(f"{folder} has no model that can be read: {error}.") from error
    for name in _SHAPE:
        ours = getattr(served, name, None)
        if name in given and given[name] != ours:
            raise VLLMValidationError(f"The weights are another model's: its {name} is {given[name]}, here {ours}.")
