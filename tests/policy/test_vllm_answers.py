"""What a vLLM server is asked for and answers, where one of both makes no sense; no vLLM needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from support.engine_subjects import FREE

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.vllm.jobs import PATH, Job, forced, sampled
from backtrack_mrt.policy.vllm.servers import Servers
from backtrack_mrt.types import Sampling

SAMPLED = sampled(0, FREE)
SERVED = '{"data": [{"id": "x", "max_model_len": 64}]}'


@pytest.fixture
def stranger() -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """A server of something else, and what it answers: content type and text by path."""
    answers: dict[str, tuple[str, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = answers[self.path]
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", answers
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text/html", "<html>"),
        ("application/json", "{oops"),
        ("application/json", '{"data": []}'),
        ("application/json", '{"data": [{"id": "x"}]}'),
        ("application/json", SERVED.replace("64", "null")),
        ("application/json", '["x"]'),
    ],
)
def test_what_is_no_vllm_is_told(stranger: tuple[str, dict[str, tuple[str, str]]], kind: str, text: str) -> None:
    url, answers = stranger
    answers |= {"/v1/models": (kind, text), "/metrics": ("text/plain", "")}
    with pytest.raises(UserError, match=rf"engine.server = '{url}': /v1/models was not answered"):
        Servers([url], 4)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[{}]",
        "{}",
        "[1]",
        '[{"token_ids": [], "logprobs": [], "cached": 0}]',
        '[{"token_ids": [1, 2], "logprobs": [-1], "cached": 0}]',
        '[{"token_ids": [1, 2, 3], "logprobs": [-1, -1, -1], "cached": 0}]',
        '[{"token_ids": ["one"], "logprobs": [-1], "cached": 0}]',
    ],
)
def test_answers_that_answer_no_job_are_told(stranger: tuple[str, dict[str, tuple[str, str]]], text: str) -> None:
    url, answers = stranger
    answers |= {"/v1/models": ("application/json", SERVED), "/metrics": ("text/plain", "")}
    answers[PATH] = ("application/json", text)
    with pytest.raises(UserError, match=rf"engine.server = '{url}': {PATH} was not answered"):
        Servers([url], 4).complete([Job((1,), 2, sampled(0, FREE))], None)


@pytest.mark.parametrize(
    "job",
    [
        Job((), 1, SAMPLED),
        Job((9,), 1, SAMPLED),
        Job((-1,), 1, SAMPLED),
        Job((1,), 0, SAMPLED),
        Job((1,), 8, SAMPLED),
        Job((1,), 1, SAMPLED, [9]),
        Job((1,), 1, SAMPLED | {"temperature": -1.0}),
        Job((1,), 1, SAMPLED | {"temperature": 1e-40}),
        Job((1,), 1, SAMPLED | {"temperature": math.nan}),
        Job((1,), 1, SAMPLED | {"top_p": 0}),
        Job((1,), 1, SAMPLED | {"seed": 0.5}),
        Job((1,), 1, {"seed": 0}),
        Job((1,), 1, {}),
        Job((1,), 1, {"forced": 1}),
        Job((1,), 2, forced((1,))),
        Job((1,), 1, forced((9,))),
        Job((1,), 1, forced((1,), (1, 9))),
    ],
)
def test_jobs_that_would_end_an_engine_are_told_from_those_that_can_be_done(job: Job) -> None:
    assert job.objection(vocabulary=9, context_length=8)
    for fine in (
        Job((8,), 7, SAMPLED, [8]),
        Job((1,), 1, sampled(2**64 - 1, Sampling(0.0))),
        Job((1,), 1, forced((8,))),
    ):
        assert fine.objection(vocabulary=9, context_length=8) is None
