"""Where a vLLM server takes a chunk of jobs in one request, each with a seed, a length and stop tokens of its own:
`vllm serve … --middleware backtrack_mrt.policy.vllm.endpoint.JobEndpoint`.

OpenAI's completions have one set of sampling parameters for all prompts of a request, so that every row would be a
request of its own.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from vllm.entrypoints.serve.utils.api_utils import with_cancellation
from vllm.exceptions import VLLMNotFoundError, VLLMValidationError
from vllm.inputs import tokens_input

from backtrack_mrt.policy.vllm.draws import answer_of, params_of
from backtrack_mrt.policy.vllm.jobs import PATH, Drawn, Job, as_json


@dataclass(frozen=True, slots=True)
class Chunk:
    """The body of a request. model: the base or an adapter of it. max_rows: jobs under way at once."""

    model: str
    max_rows: int
    jobs: list[Job]


class JobEndpoint:
    """Middleware that adds the route as the server starts: behind what asks for the key, which itself would not."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on."""
        if scope["type"] == "lifespan":
            scope["app"].add_api_route(PATH, answer_chunk, methods=["POST"])
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
