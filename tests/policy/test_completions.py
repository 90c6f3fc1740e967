"""Servers with OpenAI's completions as an engine: in token ids as vLLM answers, in text as others do."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest
from support.fake_completions_server import CompletionsServer

import backtrack_mrt as bt
from backtrack_mrt.credit import served_prover
from backtrack_mrt.data import signs
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.completions import CompletionsEngine
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.prover import LikelihoodProver
from backtrack_mrt.types import Finish, Request, Sampling, Trajectory


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return bt.assemble(bt.load_config())


@pytest.fixture(scope="module")
def trajectories(parts: Assembly) -> list[Trajectory]:
    problems = signs.generate("test", 2, seed=5)
    collector = parts.collector(parts.config.protocol, with_values=False)
    return [s.trajectory for s in collector.collect(problems, [1, 2], 1.0).scored]


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "text"])
def server(request: pytest.FixtureRequest, parts: Assembly) -> Iterator[CompletionsServer]:
    fake = CompletionsServer(parts.model, parts.tokenizer, ids=request.param)
    with fake.running():
        yield fake


def test_values_are_those_of_the_model_itself(
    parts: Assembly, trajectories: list[Trajectory], server: CompletionsServer
) -> None:
    engine = CompletionsEngine(f"{server.url}/v1", parts.tokenizer)
    assert engine.speaks_ids is server.ids
    truth = LikelihoodProver(parts.dialogue, parts.engine).values(trajectories)
    for found, values in zip(LikelihoodProver(parts.dialogue, engine).values(trajectories), truth, strict=True):
        np.testing.assert_allclose(found, values, atol=1e-5 if server.ids else 2e-3)
    engine.close()


def test_it_completes(parts: Assembly, trajectories: list[Trajectory], server: CompletionsServer) -> None:
    engine = CompletionsEngine(server.url, parts.tokenizer)
    asked = [Request(t.prompt_ids, 64, seed) for seed, t in enumerate(trajectories)]
    stops = parts.dialogue.chat.stop_ids
    greedy = engine.generate(asked, Sampling(0.0, stop_ids=stops))
    truth = parts.engine.generate(asked, Sampling(0.0, stop_ids=stops))
    assert [c.token_ids for c in greedy] == [c.token_ids for c in truth]
    assert all((c.finish is Finish.STOP) == (c.token_ids[-1] in stops) for c in greedy)
    if server.ids:
        np.testing.assert_allclose(greedy[0].logprobs, truth[0].logprobs, atol=1e-4)
    engine.close()


def test_a_prover_for_message_lists(parts: Assembly, server: CompletionsServer) -> None:
    """What a stranger writes: a served model, its tokenizer, messages."""
    prover = served_prover(server.url, parts.tokenizer, env="backtrack", prompts="terse")
    problem = signs.generate("test", 1, seed=5)[0]
    messages = [{"role": "user", "content": f"{problem.question}\nSolve."}]
    messages += [{"role": "assistant", "content": f"## Step 1: {problem.question} = {problem.answer}"}]
    (values,) = prover.values([bt.credit.conversation(messages, parts.tokenizer, problem)])
    assert values.shape == (2,)
    assert ((values >= 0) & (values <= 1)).all()
    sampled = served_prover(
        server.url, parts.tokenizer, env="backtrack", prompts="terse", estimator="monte_carlo", samples=4
    )
    (shares,) = sampled.values([bt.credit.conversation(messages, parts.tokenizer, problem)])
    assert set(shares * 4) <= {0, 1, 2, 3, 4}


def test_what_cannot_be_asked_is_told(parts: Assembly, server: CompletionsServer) -> None:
    with pytest.raises(UserError, match=r"it does not serve 'other'.*It serves: base"):
        CompletionsEngine(server.url, parts.tokenizer, model="other")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"--server.*cannot be reached"):
            CompletionsEngine(f"http://127.0.0.1:{free.getsockname()[1]}", parts.tokenizer)


def test_a_narrow_server_is_asked_for_less(parts: Assembly) -> None:
    with CompletionsServer(parts.model, parts.tokenizer, ids=False, told=5).running() as fake:
        engine = CompletionsEngine(fake.url, parts.tokenizer)
        engine.score([(1, 5)], [(6,)])
        engine.close()
    assert fake.asked[-1]["logprobs"] == 5
